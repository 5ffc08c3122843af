package client_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/client"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// A node that drains gets no new call, and no call fails.
func TestDrainingNodeGetsNoCall(t *testing.T) {
	drainWait := servertest.Config(func(c *server.Config) { c.DrainWait = 500 * time.Millisecond })
	first, second := servertest.Start(t, servertest.Parallel(), drainWait), servertest.Start(t, servertest.Parallel(), drainWait)
	var draining atomic.Bool
	var calls, late atomic.Int64
	peers := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			known := draining.Load()
			if request.Peer().Addr == first.Addr() {
				calls.Add(1)
				if known {
					late.Add(1)
				}
			}
			return next(ctx, request)
		}
	})
	drained := make(chan struct{})
	log := slog.New(newEventHandler("not serving", func() {
		draining.Store(true)
		close(drained)
	}))
	c, err := client.New([]string{first.URL(), second.URL()}, client.WithInterceptors(peers), client.WithLogger(log))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	call := func() {
		_, err := c.GetUser(limited(t), 5)
		failure := new(client.Error)
		if !errors.Is(err, client.ErrUserNotFound) || errors.As(err, &failure) && failure.Attempts != 1 {
			t.Errorf("GetUser() = %v, want ErrUserNotFound with one attempt", err)
		}
	}
	for range 10 {
		call()
	}
	if calls.Load() != 5 {
		t.Errorf("calls of the first node = %d, want 5 of 10", calls.Load())
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		first.Stop()
	}()
	for waiting := true; waiting; {
		select {
		case <-drained:
			waiting = false
		default:
			call()
		}
	}
	for waiting := true; waiting; {
		select {
		case <-stopped:
			waiting = false
		default:
			call()
		}
	}
	call()
	if late.Load() != 0 {
		t.Errorf("calls of the draining node = %d, want 0", late.Load())
	}
}

// eventHandler calls a function at the first change of the health of a node to a status.
type eventHandler struct {
	slog.Handler

	status string
	once   *atomic.Bool
	event  func()
}

func newEventHandler(status string, event func()) eventHandler {
	return eventHandler{Handler: slog.DiscardHandler, status: status, once: new(atomic.Bool), event: event}
}

func (h eventHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h eventHandler) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "status" && a.Value.String() == h.status && h.once.CompareAndSwap(false, true) {
			h.event()
		}
		return true
	})
	return nil
}
