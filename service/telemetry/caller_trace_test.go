package telemetry

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// A line names the trace of its caller whether or not there is one of our own, and by
// which name depends on whether callers are trusted.
func TestLinesNameTheTraceOfTheCaller(t *testing.T) {
	own := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab, 1}, SpanID: trace.SpanID{0xcd, 2}})
	for _, c := range []struct {
		what, parent string
		tracing      *Tracing
		spans        bool
		want         string
	}{
		{"linked", remoteSpan, &Tracing{joins: true}, false, "caller_trace_id=" + remoteTrace},
		{"trusted", remoteSpan, &Tracing{joins: true, trust: true}, false, "trace_id=" + remoteTrace},
		{"linked, with a span", remoteSpan, &Tracing{joins: true}, true, "trace_id=ab010000000000000000000000000000 span_id=cd02000000000000 caller_trace_id=" + remoteTrace},
		{"trusted, with a span", remoteSpan, &Tracing{joins: true, trust: true}, true, "trace_id=ab010000000000000000000000000000 span_id=cd02000000000000"},
		{"not understood", remoteSpan, &Tracing{}, false, ""},
		{"none", "", &Tracing{joins: true}, false, ""},
		{"nonsense", "00-xyz\nmsg=forged-01", &Tracing{joins: true}, false, ""},
	} {
		var out bytes.Buffer
		ctx := t.Context()
		if c.spans {
			ctx = trace.ContextWithSpanContext(ctx, own)
		}
		ctx = c.tracing.WithCaller(ctx, http.Header{"Traceparent": {c.parent}})
		slog.New(Plain(slog.NewTextHandler(&out, nil))).InfoContext(ctx, "call")
		_, got, _ := strings.Cut(strings.TrimSpace(out.String()), "msg=call")
		if strings.TrimSpace(got) != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
