package server_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"
)

// While an index is built the process is alive and not ready. The server then uses the same listener.
func TestOpeningIsNotReady(t *testing.T) {
	t.Parallel()
	cfg := server.Config{AdminListen: "127.0.0.1:0"}
	opening := server.NewOpening(cfg, nil, telemetry.NewMetrics(telemetry.Build{}), slog.New(slog.DiscardHandler))
	opening.Indexing(t.Context(), 40, 100)
	opening.Indexing(t.Context(), 50, 100)
	url := "http://" + opening.Addr().String()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	get := func(path string) (status int, body string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	if status, body := get("/livez"); status != http.StatusOK {
		t.Errorf("/livez = %d %q, want 200", status, body)
	}
	if status, body := get("/readyz"); status != http.StatusServiceUnavailable || body != "not ready\nindexing: 50 of 100 users\n" {
		t.Errorf("/readyz = %d %q, want 503 and the progress", status, body)
	}
	listener := opening.End()
	after := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- after.Serve(listener) }()
	if status, _ := get("/readyz"); status != http.StatusNotFound {
		t.Errorf("response on the listener after End = %d, want that of the next server, 404", status)
	}
	if err := after.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve = %v, want ErrServerClosed", err)
	}
}

// Without an index to build, nothing listens.
func TestOpeningWithoutIndexing(t *testing.T) {
	t.Parallel()
	opening := server.NewOpening(server.Config{AdminListen: "127.0.0.1:0"}, nil, telemetry.NewMetrics(telemetry.Build{}), slog.New(slog.DiscardHandler))
	if listener := opening.End(); listener != nil {
		t.Errorf("End() = %v, want nil", listener)
	}
}
