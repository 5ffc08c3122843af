package telemetry

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/yourorg/userservice/service/reqinfo"
)

// Log lines have the caller's trace id, with or without own tracing. The key depends on trust.
func TestCallerTraceID(t *testing.T) {
	own := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab, 1}, SpanID: trace.SpanID{0xcd, 2}})
	for _, c := range []struct {
		what, parent string
		tracing      *Tracing
		spans        bool
		want         string
	}{
		{"linked", remoteSpan, &Tracing{propagates: true}, false, "caller_trace_id=" + remoteTrace},
		{"trusted", remoteSpan, &Tracing{propagates: true, trust: true}, false, "trace_id=" + remoteTrace},
		{"linked, with a span", remoteSpan, &Tracing{propagates: true}, true, "trace_id=ab010000000000000000000000000000 span_id=cd02000000000000 caller_trace_id=" + remoteTrace},
		{"trusted, with a span", remoteSpan, &Tracing{propagates: true, trust: true}, true, "trace_id=ab010000000000000000000000000000 span_id=cd02000000000000"},
		{"not understood", remoteSpan, &Tracing{}, false, ""},
		{"none", "", &Tracing{propagates: true}, false, ""},
		{"nonsense", "00-xyz\nmsg=forged-01", &Tracing{propagates: true}, false, ""},
	} {
		var out bytes.Buffer
		ctx := t.Context()
		if c.spans {
			ctx = trace.ContextWithSpanContext(ctx, own)
		}
		ctx = reqinfo.With(ctx, c.tracing.CallerTrace(http.Header{"Traceparent": {c.parent}}))
		slog.New(Sanitize(slog.NewTextHandler(&out, nil))).InfoContext(ctx, "call")
		_, got, _ := strings.Cut(strings.TrimSpace(out.String()), "msg=call")
		if strings.TrimSpace(got) != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
