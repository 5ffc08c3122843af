package telemetry

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// quietConn is a stream without messages.
type quietConn struct {
	connect.StreamingHandlerConn

	kind connect.StreamType
}

func (c *quietConn) Spec() connect.Spec {
	return connect.Spec{Procedure: "/x.Y/Z", StreamType: c.kind}
}
func (*quietConn) Peer() connect.Peer {
	return connect.Peer{Protocol: connect.ProtocolGRPC, Addr: "192.0.2.1:99"}
}
func (*quietConn) RequestHeader() http.Header  { return http.Header{"Traceparent": {remoteSpan}} }
func (*quietConn) ResponseHeader() http.Header { return http.Header{} }

// A stream has one span with its protocol and code. The spans of the store would be children of the
// span in the context, which records for client streams only.
func TestStreamsHaveOneSpan(t *testing.T) {
	for _, kind := range []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi} {
		tracing, recorder := recording(false)
		interceptors, err := tracing.Interceptors(speaks)
		if err != nil {
			t.Fatal(err)
		}
		var inside trace.Span
		handler := connect.StreamingHandlerFunc(func(ctx context.Context, _ connect.StreamingHandlerConn) error {
			inside = trace.SpanFromContext(ctx)
			if got, want := inside.IsRecording(), kind == connect.StreamTypeClient; got != want {
				t.Errorf("%v: IsRecording() = %v, want %v", kind, got, want)
			}
			return connect.NewError(connect.CodeInternal, errors.New("planted"))
		})
		for i := range interceptors {
			handler = interceptors[len(interceptors)-1-i].WrapStreamingHandler(handler)
		}
		_ = handler(t.Context(), &quietConn{kind: kind})
		spans := recorder.Ended()
		if len(spans) != 1 || spans[0].Name() != "x.Y/Z" || spans[0].Status().Code != codes.Error || !spans[0].SpanContext().Equal(inside.SpanContext()) {
			t.Fatalf("%v: spans = %v, want one failed span with the ids of the context", kind, spans)
		}
		about := make(map[string]string)
		for _, a := range spans[0].Attributes() {
			about[string(a.Key)] = a.Value.String()
		}
		if about["userd.protocol"] != "grpc" || about["rpc.response.status_code"] != "INTERNAL" || len(about) > 5 {
			t.Errorf("%v: attributes = %v, want protocol and code, and no address", kind, about)
		}
	}
}
