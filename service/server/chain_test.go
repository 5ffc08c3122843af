package server

import (
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yourorg/userservice/service/telemetry"
)

// The order of the chain is a decision, see chain. Whoever changes it changes this,
// too; what each place is good for has its test where it shows: a panic becomes an
// answer and a log line, a refusal carries a position.
func TestOrderOfTheChain(t *testing.T) {
	want := []string{
		"*otelconnect.Interceptor", "*telemetry.streamSpans", "*intercept.Metrics", "*intercept.Log", "*intercept.Errors",
		"*intercept.Reasons", "*intercept.Authorize", "intercept.Caller", "intercept.Expiry",
		"*intercept.StreamLimits", "*intercept.Deadline", "server.responses", "*intercept.Position", "*intercept.Validate", "server.fetching",
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.TracingOptions{Console: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tracing.Shutdown(t.Context()) }()
	log := slog.New(slog.DiscardHandler)
	watching, err := newObservers(log, telemetry.NewMetrics(telemetry.Build{}), tracing)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	c := chain(links{observers: watching, log: log, store: nopStore{}, limits: &limits{}})
	for _, interceptor := range append(c.outer, c.inner...) {
		got = append(got, fmt.Sprintf("%T", interceptor))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
