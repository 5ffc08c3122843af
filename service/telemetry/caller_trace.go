package telemetry

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// callerTrace is the trace that a caller says a request belongs to.
type callerTrace struct {
	id      string
	trusted bool
}

type callerTraceKey struct{}

// WithCaller returns a context whose lines, written through Plain, name the trace that
// the header of the request names: as caller_trace_id, or, where callers are trusted,
// as trace_id. So a call is found by what its caller knows of it, whether or not this
// service records traces.
func (t *Tracing) WithCaller(ctx context.Context, header http.Header) context.Context {
	if !t.joins || header.Get("Traceparent") == "" {
		return ctx
	}
	remote := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header)))
	if !remote.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, callerTraceKey{}, callerTrace{remote.TraceID().String(), t.trust})
}
