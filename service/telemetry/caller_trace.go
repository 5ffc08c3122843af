package telemetry

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// callerTrace is the trace id from a caller's traceparent header.
type callerTrace struct {
	id      string
	trusted bool
}

type callerTraceKey struct{}

// WithCaller returns a context whose log lines, written through Sanitize, have the trace id of
// the traceparent header: as trace_id if callers are trusted, else as caller_trace_id. This
// works with tracing disabled too.
func (t *Tracing) WithCaller(ctx context.Context, header http.Header) context.Context {
	if !t.propagates || header.Get("Traceparent") == "" {
		return ctx
	}
	remote := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header)))
	if !remote.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, callerTraceKey{}, callerTrace{remote.TraceID().String(), t.trust})
}
