package telemetry_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
)

// Exemplars, log lines and spans of a call have the same trace id.
func TestTraceIDInMetricsLogsAndTraces(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	var spans, lines bytes.Buffer
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.TracingOptions{Service: "userd", Version: "v1", Console: &spans})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(telemetry.Sanitize(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug})))
	metrics := telemetry.NewMetrics(telemetry.Build{Version: "v1"})
	observer, err := intercept.NewObserver(intercept.ObserverOptions{Logger: log, Registry: metrics.Registry()})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := tracing.Interceptors(intercept.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	chain = append(chain, observer)
	_, handler := userv1connect.NewUserServiceHandler(userv1connect.UnimplementedUserServiceHandler{}, connect.WithInterceptors(chain...))
	for _, procedure := range []string{userv1connect.UserServiceGetUserProcedure, userv1connect.UserServiceUndeleteUserProcedure} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, procedure, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	if err := tracing.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, text := scrape(t, metrics.Handler(log), "application/openmetrics-text;version=1.0.0")
	ids := func(pattern, in string) []string {
		var found []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(in, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return slices.Compact(found)
	}
	inGraph := ids(`grpc_server_handling_seconds_bucket.*# \{trace_id="([0-9a-f]{32})"\}`, text)
	inLog := ids(`msg="finished call" .*trace_id=([0-9a-f]{32})`, lines.String())
	inTraces := ids(`"SpanContext":\{"TraceID":"([0-9a-f]{32})"`, spans.String())
	if len(inGraph) != 2 || !slices.Equal(inGraph, inLog) || !slices.Equal(inGraph, inTraces) {
		t.Errorf("exemplars %v\nlog %v\nspans %v\n%s\n%s", inGraph, inLog, inTraces, &lines, &spans)
	}
}
