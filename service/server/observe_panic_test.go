package server

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
)

// A panic that is not recovered is logged and counted, also if an interceptor had marked the request as
// logged.
func TestUnrecoveredPanicIsLogged(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"not logged": func(http.ResponseWriter, *http.Request) { panic("planted") },
		"logged": connect.NewUnaryHandler("/x", func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			panic("planted")
		}, connect.WithInterceptors(intercept.NewPlainObserver(slog.New(slog.DiscardHandler)))).ServeHTTP,
	} {
		var out bytes.Buffer
		metrics := telemetry.NewMetrics(telemetry.Build{})
		observer, err := intercept.NewObserver(intercept.ObserverOptions{
			Logger: slog.New(slog.NewJSONHandler(&out, nil)), Registry: metrics.Registry(), CountRequest: metrics.HTTPDone,
		})
		if err != nil {
			t.Fatal(err)
		}
		guard := transport.NewGuard(transport.GuardOptions{
			StallTimeout: time.Minute, BodyTimeout: time.Minute, MaxMessageBytes: func(*http.Request) int64 { return 1 << 20 },
			IsStream: func(*http.Request) bool { return false }, Context: requestContext(telemetry.DisabledTracing()),
			Done:   func(r *http.Request, x *transport.Exchange) { observer.RequestDone(r, x) },
			Logger: slog.New(slog.DiscardHandler),
		})
		t.Cleanup(guard.Close)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x", bytes.NewReader([]byte("{}")))
		r.Header.Set("Content-Type", "application/json")
		func() {
			defer func() {
				if got := recover(); got != "planted" {
					t.Errorf("%s: panic value = %v", name, got)
				}
			}()
			guard.Wrap(handler).ServeHTTP(httptest.NewRecorder(), r)
		}()
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v: %s", name, err, &out)
		}
		if line["level"] != "ERROR" || line["msg"] != "finished request" || line["status"] != 500.0 || line["code"] != "internal" {
			t.Errorf("%s: got %v", name, line)
		}
	}
}
