package health_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/grpchealth"

	"github.com/yourorg/userservice/service/health"
	"github.com/yourorg/userservice/service/user"
)

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
