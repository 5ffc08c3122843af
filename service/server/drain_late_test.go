package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/health"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

// lateStore has a read that continues for 100 ms after its call is canceled.
type lateStore struct {
	user.Store

	reading          chan struct{}
	busy, closedBusy atomic.Bool
}

func (s *lateStore) Get(ctx context.Context, _ int64) (*user.User, error) {
	s.busy.Store(true)
	defer s.busy.Store(false)
	close(s.reading)
	<-ctx.Done()
	<-time.After(20 * time.Millisecond) // like an interrupted SQL statement
	return nil, ctx.Err()
}

func (s *lateStore) Close() error {
	s.closedBusy.Store(s.busy.Load())
	return s.Store.Close()
}

// A call that exceeds the shutdown timeout is canceled, its handler ends before the store closes, and
// the shutdown fails.
func TestShutdownCancelsLateCalls(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{0, 2 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			log, metrics := slog.New(slog.DiscardHandler), telemetry.NewMetrics(telemetry.Build{})
			store, storage, err := OpenStore(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "users.db"), false, log, metrics)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := Defaults()
			if err != nil {
				t.Fatal(err)
			}
			cfg.Listen, cfg.AdminListen, cfg.ShutdownTimeout = "127.0.0.1:0", "", timeout
			late := &lateStore{Store: store, reading: make(chan struct{})}
			s, err := New(t.Context(), cfg, Parts{Store: late, Storage: storage, Logger: log, Metrics: metrics})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			stopped := make(chan error, 1)
			go func() { stopped <- s.Run(ctx) }()
			called, http1 := make(chan error, 1), &http.Transport{}
			t.Cleanup(http1.CloseIdleConnections)
			go func() {
				client := userv1connect.NewUserServiceClient(&http.Client{Transport: http1}, "http://"+s.Addr().String())
				_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1})
				called <- err
			}()
			<-late.reading
			began := time.Now()
			stop()
			if err := <-stopped; err == nil || !strings.Contains(err.Error(), "calls aborted after "+timeout.String()) {
				t.Errorf("Run = %v, want aborted calls", err)
			}
			if took := time.Since(began); took > timeout+2*time.Second {
				t.Errorf("shutdown took %v", took)
			}
			if late.closedBusy.Load() {
				t.Error("the store was closed while a handler used it")
			}
			if err := <-called; connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("GetUser = %v, want UNAVAILABLE", err)
			}
		})
	}
}

// During the shutdown Check returns NOT_SERVING and Watch ends.
func TestHealthDuringShutdown(t *testing.T) {
	t.Parallel()
	h := health.New(func() user.Head { return user.Head{Epoch: "e", Position: 7} })
	mux := http.NewServeMux()
	mux.Handle(grpchealth.NewHandler(h))
	mux.Handle(h.WatchHandler())
	server := httptest.NewServer(mux)
	defer server.Close()
	client := grpchealth.NewClient(server.Client(), server.URL)
	h.Drain()
	h.EndWatches()
	for _, name := range []string{health.Server, health.Reads, health.Writes} {
		got, err := client.Check(t.Context(), &grpchealth.CheckRequest{Service: name})
		if err != nil || got.Status != grpchealth.StatusNotServing {
			t.Errorf("%q: got %v, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if event := <-client.Watch(ctx, &grpchealth.CheckRequest{}); event.Err == nil {
		t.Errorf("a watch: got %+v", event.Response)
	}
}
