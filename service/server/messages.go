package server

import (
	"context"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/bounds"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

const (
	// decodedFactor bounds what a message takes when it is decoded, as a multiple of the
	// limit of its length; leastDecoded is enough for every message that the rules allow.
	decodedFactor = 8
	leastDecoded  = 32 << 20
	// jsonDecodings is how often a REST body is decoded: from JSON, and from the binary
	// form that the transcoder makes of it.
	jsonDecodings = 2
)

// newMessages returns what reads the messages of requests.
func (s *Server) newMessages() *transport.Messages {
	limit := max(decodedFactor*int64(s.cfg.MaxMessageBytes), leastDecoded)
	if share := s.limits.memory.CallerShare(budget.Known); share > 0 {
		limit = min(limit, share/jsonDecodings) // what never fits is not worth a retry
	}
	return transport.NewMessages(transport.MessageOptions{
		TooLarge: s.tooLargeOf,
		TooComplex: func(limit int64) error {
			s.metrics.RequestRejected(string(user.MessageTooLarge))
			return intercept.NewTooComplexError(limit)
		},
		Overloaded: s.limits.overloaded,
		MaxDecoded: limit,
		DecodedSize: func(message protoreflect.MessageDescriptor, json bool, data []byte) int64 {
			if json {
				return bounds.JSON(data)
			}
			return bounds.Binary(message, data, limit)
		},
	})
}

// withMessages lets the handler of RPCs read its messages through the messages, and keeps
// its response from waiting for the peer.
func (s *Server) withMessages(messages *transport.Messages, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := noteOf(r.Context())
		if !isREST(r) && r.Body != nil && r.Body != http.NoBody {
			n.incoming = messages.Receive(r)
			defer n.incoming.Release()
		} else {
			fair.FromContext(r.Context()).Acquire()
		}
		n.outgoing = transport.NewOutgoing(w, r)
		next.ServeHTTP(n.outgoing, r)
		if n.outgoing.Finish() {
			s.limits.refuse(w, r, user.NewOverloadedError())
		}
	})
}

// gate runs for each call before its message is read. It refuses callers by the procedure
// that the handler serves, and sets the limit of the messages.
func (s *Server) gate(l links) connect.RequestGateFunc {
	return func(ctx context.Context, spec connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
		n := noteOf(ctx)
		if err := l.policy.Authorize(ctx, spec.Procedure); err != nil {
			l.deny(ctx, err)
			if n.incoming != nil {
				n.incoming.SkipBody(n.outgoing.Header())
			}
			answer, _ := intercept.ToConnect(err)
			return nil, answer
		}
		if n.outgoing != nil && spec.StreamType&connect.StreamTypeServer == 0 {
			n.outgoing.Buffer()
		}
		if n.incoming == nil {
			return ctx, nil
		}
		var input protoreflect.MessageDescriptor
		if method, ok := spec.Schema.(protoreflect.MethodDescriptor); ok {
			input = method.Input()
		}
		n.incoming.Open(input, s.limits.messageBytes(spec.Procedure))
		if spec.StreamType&connect.StreamTypeClient == 0 {
			if spec.StreamType == connect.StreamTypeUnary {
				n.incoming.FetchOnly()
			} else {
				n.incoming.Fetch()
			}
			fair.FromContext(ctx).Acquire()
		}
		return ctx, nil
	}
}

// deny notes why the policy has refused a call.
func (l *links) deny(ctx context.Context, err error) {
	if refused, ok := user.AsError(err); ok {
		noteOf(ctx).limited = refused
		l.reasons.Refused(refused.Reason)
	}
}

// fetching waits for the messages of client streams before connect does, which would hold
// a buffer meanwhile. See transport.Messages. It also lets streams run in turns.
type fetching struct{ connect.Interceptor }

// WrapUnary returns next as it is.
func (fetching) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingClient returns next as it is.
func (fetching) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler makes Receive wait outside connect.
func (fetching) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		n, slot := noteOf(ctx), fair.FromContext(ctx)
		slot.Release()
		turns := &streamTurns{StreamingHandlerConn: conn, slot: slot, out: n.exchange}
		if conn.Spec().StreamType&connect.StreamTypeClient != 0 {
			turns.in = n.incoming
		}
		if turns.in != nil && strings.HasPrefix(conn.Spec().Procedure, reflectionPath) {
			turns.memory = budget.FromContext(ctx)
		}
		return next(fair.NewContext(ctx, nil), turns)
	}
}

// turnBytes is how much a stream receives or sends in one turn.
const turnBytes = 4 << 10

// streamTurns is a stream whose handler waits for its turn to run once for turnBytes of messages. In
// between, and while it waits, it has no slot: a turn for each message would cost more than a small
// message does.
type streamTurns struct {
	connect.StreamingHandlerConn

	slot           *fair.Slot
	in             *transport.Incoming // nil: connect waits for the messages
	out            *transport.Exchange // nil: messages are sent without turns
	received, sent int64               // bytes, as of the last turn
	// memory is that of a stream of reflection, whose responses are large and costly: each request is
	// handled in a turn, and each response is reserved. nil: of another stream.
	memory *budget.Reservation
}

// Receive receives a message.
func (c *streamTurns) Receive(message any) error {
	if c.memory != nil {
		c.slot.Release()
		c.in.Fetch()
		c.slot.Acquire()
	} else if c.in != nil {
		c.in.Fetch()
		if c.received += int64(c.in.Fetched()); c.received > turnBytes {
			c.received = 0
			c.slot.Acquire()
			defer c.slot.Release()
		}
	}
	return c.StreamingHandlerConn.Receive(message)
}

// Send sends a message.
func (c *streamTurns) Send(message any) error {
	if m, ok := message.(proto.Message); ok && c.memory != nil {
		size := responseCopies * int64(proto.Size(m))
		if c.memory.Grow(budget.Response, size) != nil {
			return user.NewOverloadedError()
		}
		defer c.memory.Shrink(budget.Response, size)
		return c.StreamingHandlerConn.Send(message)
	}
	if c.out != nil && c.out.Written()-c.sent > turnBytes {
		c.sent = c.out.Written()
		c.slot.Acquire()
		defer c.slot.Release()
	}
	return c.StreamingHandlerConn.Send(message)
}

// responses reserves the response of a unary call when its size is known.
type responses struct{ connect.Interceptor }

// responseCopies is how often a response is in memory until its handler has returned: as
// a message and in the buffers of its encoders. The encoded response, which its peer may
// be slow to read, is reserved by transport.Outgoing.
const responseCopies = 2

// WrapUnary reserves the response.
func (responses) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		message, ok := res.Any().(proto.Message)
		if !ok {
			return res, nil
		}
		memory := budget.FromContext(ctx)
		// What the handler has reserved for what it might have become.
		memory.Shrink(budget.Response, memory.Held(budget.Response))
		if size := int64(proto.Size(message)); size > smallResponse && memory.Grow(budget.Response, responseCopies*size) != nil {
			return nil, user.NewOverloadedError()
		}
		return res, nil
	}
}

// smallResponse is the size of a response that the base cost of a request covers.
const smallResponse = 4 << 10

// WrapStreamingClient returns next as it is.
func (responses) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler returns next as it is: a stream sends page by page.
func (responses) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func isREST(r *http.Request) bool {
	return len(r.URL.Path) >= len(rest.Prefix) && r.URL.Path[:len(rest.Prefix)] == rest.Prefix
}
