package telemetry

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// CallerTrace in the context of a request is the trace id from the caller's traceparent header.
// Log lines written through Sanitize have it: as trace_id if callers are trusted, else as
// caller_trace_id.
type CallerTrace struct {
	id      string
	trusted bool
}

// CallerTrace returns the trace of a request header, nil if there is none. It does so with tracing
// disabled too.
func (t *Tracing) CallerTrace(header http.Header) *CallerTrace {
	if !t.propagates || header.Get("Traceparent") == "" {
		return nil
	}
	remote := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(header)))
	if !remote.IsValid() {
		return nil
	}
	return &CallerTrace{remote.TraceID().String(), t.trust}
}
