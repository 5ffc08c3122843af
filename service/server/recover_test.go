package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
)

// A panic in the middleware gets an error response in the protocol of the request. If the response has
// begun, the exchange is aborted.
func TestPanicInMiddleware(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, contentType string
		panics                  http.HandlerFunc
		status                  int
		header                  string // has INTERNAL if the body does not
		cut                     bool
	}{
		{name: "REST", path: "/api/v1/users/1", status: 500, panics: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			panic("planted")
		}},
		{name: "Connect", path: "/user.v1.UserService/GetUser", contentType: "application/json", status: 500, panics: func(http.ResponseWriter, *http.Request) { panic("planted") }},
		{name: "gRPC", path: "/user.v1.UserService/GetUser", contentType: "application/grpc", status: 200, header: "Grpc-Status", panics: func(http.ResponseWriter, *http.Request) { panic("planted") }},
		{name: "begun", path: "/api/v1/users/1", status: 200, cut: true, panics: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("half"))
			panic("planted")
		}},
		{name: "abort", path: "/api/v1/users/1", status: 200, cut: true, panics: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			guard := transport.NewGuard(transport.GuardOptions{
				StallTimeout: time.Minute, BodyTimeout: time.Minute, MaxMessageBytes: func(*http.Request) int64 { return 1 << 20 },
				IsStream: func(*http.Request) bool { return false }, Context: requestContext(telemetry.DisabledTracing()),
				Recovered: recovered(slog.New(slog.NewTextHandler(&log, nil))), Logger: slog.New(slog.DiscardHandler),
			})
			t.Cleanup(guard.Close)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, c.path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", c.contentType)
			w := httptest.NewRecorder()
			func() {
				defer func() {
					if err, _ := recover().(error); errors.Is(err, http.ErrAbortHandler) != c.cut {
						t.Errorf("panic value = %v", err)
					}
				}()
				guard.Wrap(c.panics).ServeHTTP(w, r)
			}()
			if w.Code != c.status || w.Header().Get("Content-Encoding") != "" {
				t.Errorf("got %d %v", w.Code, w.Header())
			}
			if shown := w.Body.String() + w.Header().Get("Grpc-Message") + w.Header().Get("Connect-Error"); strings.Contains(shown, "planted") {
				t.Errorf("response reveals %q", shown)
			}
			if c.name == "REST" && !strings.Contains(w.Body.String(), `"incident"`) {
				t.Errorf("no incident: %s", w.Body)
			}
			if c.header != "" && w.Header().Get(c.header) != "13" {
				t.Errorf("got %v", w.Header())
			}
			if logged := strings.Contains(log.String(), "recover_test.go"); logged != (c.name != "abort") {
				t.Errorf("the log: %s", &log)
			}
		})
	}
}
