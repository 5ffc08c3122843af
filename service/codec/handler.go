package codec

import (
	"context"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/reqinfo"
)

// Request in the context of a request has its messages.
type Request struct {
	incoming *Incoming // nil if no RPC reads the body
	outgoing *Outgoing // nil if no RPC writes the response
}

// Incoming returns the request body, nil if no RPC reads it.
func (q *Request) Incoming() *Incoming { return q.incoming }

// RequestOf returns the messages of the request, or an unused Request if the context has none.
func RequestOf(ctx context.Context) *Request {
	if q := reqinfo.From[*Request](ctx); q != nil {
		return q
	}
	return new(Request)
}

// ReceiveOnly reads the message of a unary call. It returns false if there is not exactly one valid message. The body can then be
// read as if ReceiveOnly had not been called.
func (q *Request) ReceiveOnly(message proto.Message, input protoreflect.MessageDescriptor, limit int64) bool {
	in := q.incoming
	if in == nil || q.outgoing == nil {
		return false
	}
	in.Open(input, limit)
	in.FetchOnly()
	if !in.isOnly() || in.decode(message) != nil {
		return false
	}
	in.releaseData()
	return true
}

// StartStream starts a response of several messages, after ReceiveOnly.
func (q *Request) StartStream() {
	q.outgoing.Open(false)
	q.release()
}

// release releases the request body, if any.
func (q *Request) release() {
	if q.incoming != nil {
		q.incoming.Release()
		q.incoming = nil
	}
}

// Respond sends the response of a unary call when the handler has returned. The body must not be modified. It returns a *budget.Error
// if there is no memory.
func (q *Request) Respond(body []byte) error {
	q.outgoing.Open(true)
	return q.outgoing.send(body)
}

// Handler lets the RPC handlers in next read their messages through m, and buffers unary responses, so
// that a slow client does not block a handler. REST reads its body itself.
func (m *Messages) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := RequestOf(r.Context())
		if !strings.HasPrefix(r.URL.Path, protocol.RESTPrefix) && r.Body != nil && r.Body != http.NoBody {
			q.incoming = m.Receive(r)
			defer q.release()
		}
		q.outgoing = NewOutgoing(w, r)
		next.ServeHTTP(q.outgoing, r)
		if q.outgoing.Finish() {
			m.opts.NoMemory(w, r)
		}
	})
}

// Gate runs for each call before its message is read. It authorizes the caller for the procedure, and sets
// the size limit of the messages of the procedure.
func (m *Messages) Gate(authorize func(ctx context.Context, procedure string) *connect.Error, limit func(procedure string) int64) connect.RequestGateFunc {
	return func(ctx context.Context, spec connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
		q := RequestOf(ctx)
		if err := authorize(ctx, spec.Procedure); err != nil {
			if q.incoming != nil {
				q.incoming.SkipBody(q.outgoing.Header())
			}
			return nil, err
		}
		if q.outgoing != nil {
			q.outgoing.Open(spec.StreamType&connect.StreamTypeServer == 0)
		}
		if q.incoming == nil {
			return ctx, nil
		}
		var input protoreflect.MessageDescriptor
		if method, ok := spec.Schema.(protoreflect.MethodDescriptor); ok {
			input = method.Input()
		}
		q.incoming.Open(input, limit(spec.Procedure))
		switch spec.StreamType {
		case connect.StreamTypeUnary:
			q.incoming.FetchOnly()
		case connect.StreamTypeServer:
			q.incoming.Fetch()
		case connect.StreamTypeClient, connect.StreamTypeBidi:
		}
		return ctx, nil
	}
}
