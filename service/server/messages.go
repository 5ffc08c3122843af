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
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

const (
	// decodedFactor bounds the memory of a decoded message, as a multiple of --max-message-bytes.
	decodedFactor = 8
	// minMaxDecoded is the minimum of this bound. Every valid message is smaller.
	minMaxDecoded = 32 << 20
)

// newMessages returns the reader of request messages.
func (s *Server) newMessages() *codec.Messages {
	limit := max(decodedFactor*int64(s.cfg.MaxMessageBytes), minMaxDecoded)
	if share := s.limits.memory.CallerShare(budget.Known); share > 0 {
		// A message that can never be reserved is rejected as too complex: OVERLOADED would make
		// the client retry.
		limit = min(limit, share)
	}
	return codec.NewMessages(codec.MessageOptions{
		TooLarge: s.newTooLargeErrorFor,
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

// withMessages makes the RPC handler read its messages through messages, and buffers the response
// so that a slow client does not block the handler.
func (s *Server) withMessages(messages *codec.Messages, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state := stateOf(r.Context())
		if !isREST(r) && r.Body != nil && r.Body != http.NoBody {
			state.incoming = messages.Receive(r)
			defer state.incoming.Release()
		}
		state.outgoing = codec.NewOutgoing(w, r)
		next.ServeHTTP(state.outgoing, r)
		if state.outgoing.Finish() {
			s.limits.refuse(w, r, user.NewOverloadedError())
		}
	})
}

// gate runs for each call before its message is read. It authorizes the caller for the procedure and
// sets the size limit of messages.
func (s *Server) gate(l links) connect.RequestGateFunc {
	return func(ctx context.Context, spec connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
		state := stateOf(ctx)
		if err := l.policy.Authorize(ctx, spec.Procedure); err != nil {
			l.deny(ctx, err)
			if state.incoming != nil {
				state.incoming.SkipBody(state.outgoing.Header())
			}
			converted, _ := intercept.ToConnect(err)
			return nil, converted
		}
		if state.outgoing != nil && spec.StreamType&connect.StreamTypeServer == 0 {
			state.outgoing.Buffer()
		}
		if state.incoming == nil {
			return ctx, nil
		}
		var input protoreflect.MessageDescriptor
		if method, ok := spec.Schema.(protoreflect.MethodDescriptor); ok {
			input = method.Input()
		}
		state.incoming.Open(input, s.limits.maxMessageBytes(spec.Procedure))
		if spec.StreamType&connect.StreamTypeClient == 0 {
			if spec.StreamType == connect.StreamTypeUnary {
				state.incoming.FetchOnly()
			} else {
				state.incoming.Fetch()
			}
		}
		return ctx, nil
	}
}

// deny records that the policy rejected the call.
func (l *links) deny(ctx context.Context, err error) {
	if refused, ok := user.AsError(err); ok {
		stateOf(ctx).limited = refused
		l.calls.Refused(refused.Reason)
	}
}

// fetching reads the messages of client streams before connect does, because connect would hold a
// buffer while it waits (see codec.Messages). It also schedules streams by their callers.
type fetching struct{ connect.Interceptor }

// WrapUnary returns next as it is.
func (fetching) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingClient returns next as it is.
func (fetching) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler makes Receive wait outside of connect.
func (fetching) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		state, slot := stateOf(ctx), fair.FromContext(ctx)
		slot.Release()
		turns := &streamTurns{StreamingHandlerConn: conn, slot: slot, in: state.incoming, out: state.exchange}
		if turns.in != nil && strings.HasPrefix(conn.Spec().Procedure, reflectionPath) {
			turns.memory = budget.FromContext(ctx)
		}
		return next(fair.NewContext(ctx, nil), turns)
	}
}

// turnBytes is the number of bytes that a stream receives or sends per turn.
const turnBytes = 4 << 10

// streamTurns is a stream that acquires a slot once per turnBytes of messages. A turn for each
// message would cost more than a small message.
type streamTurns struct {
	connect.StreamingHandlerConn

	slot           *fair.Slot
	in             *codec.Incoming     // nil: connect reads the messages
	out            *transport.Exchange // nil: messages are sent without turns
	received, sent int64               // bytes since the last turn, and up to it
	// memory is the reservation of a reflection stream, nil for others. Its responses are large and
	// expensive: each request is handled in a turn, and each response is reserved.
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
		defer c.slot.Release()
		if c.received += int64(c.in.Fetched()); c.received > turnBytes {
			c.received = 0
			c.slot.Acquire()
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

// responses reserves the memory of unary responses.
type responses struct{ connect.Interceptor }

// responseCopies is the number of copies of a response until its handler returns: the message and the
// encoder buffers. codec.Outgoing reserves the encoded response.
const responseCopies = 2

// WrapUnary reserves the response once its size is known.
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
		// Replace the estimate of the handler.
		memory.Shrink(budget.Response, memory.Held(budget.Response))
		if size := int64(proto.Size(message)); size > smallResponse && memory.Grow(budget.Response, responseCopies*size) != nil {
			return nil, user.NewOverloadedError()
		}
		return res, nil
	}
}

// smallResponse is the size covered by the base cost of a request.
const smallResponse = 4 << 10

// WrapStreamingClient returns next as it is.
func (responses) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler returns next as it is: streams reserve each page.
func (responses) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func isREST(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, protocol.RESTPrefix)
}
