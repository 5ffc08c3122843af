package intercept

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/user"
)

// Turns is an interceptor that schedules streams by their callers, and reads the messages of client streams
// before connect does, because connect would hold a buffer while it waits (see codec.Messages). It must be
// the innermost interceptor that inspects messages.
type Turns struct {
	serverOnly

	// ReserveBidi reserves the responses of bidirectional streams, and handles each of their requests in a
	// turn. Their responses are large and expensive (reflection).
	ReserveBidi bool
}

// Messages in the context of a stream has its request messages.
type Messages interface {
	// Fetch waits for the next message. It acquires the slot of the request for one that is not small.
	Fetch()
	// Fetched returns the length of the message.
	Fetched() int
}

// WrapUnary returns next as it is.
func (Turns) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler makes Receive wait outside of connect.
func (t Turns) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(fair.NewContext(ctx, nil), t.newStream(ctx, conn))
	}
}

// newStream releases the slot of the request and returns the conn that acquires it for turns.
func (t Turns) newStream(ctx context.Context, conn connect.StreamingHandlerConn) *streamTurns {
	slot := fair.FromContext(ctx)
	slot.Release()
	turns := &streamTurns{StreamingHandlerConn: conn, slot: slot, in: reqinfo.From[Messages](ctx), out: reqinfo.From[Response](ctx)}
	if t.ReserveBidi && turns.in != nil && conn.Spec().StreamType == connect.StreamTypeBidi {
		turns.memory = budget.FromContext(ctx)
	}
	return turns
}

const (
	// turnBytes is the number of bytes that a stream receives or sends per turn.
	turnBytes = 4 << 10
	// messageBytes is what a received message counts beside its bytes: an empty one is work too.
	messageBytes = 128
)

// streamTurns is a stream that acquires a slot once per turnBytes of messages. A turn for each
// message would cost more than a small message.
type streamTurns struct {
	connect.StreamingHandlerConn

	slot           *fair.Slot
	in             Messages // nil: connect reads the messages
	out            Response // nil: messages are sent without turns
	received, sent int64    // bytes since the last turn, and up to it
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
		if c.received += messageBytes + int64(c.in.Fetched()); c.received > turnBytes {
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
	if c.out != nil && c.out.Written()-c.sent > turnBytes && !c.out.IsDirect() {
		c.sent = c.out.Written()
		c.slot.Acquire()
		defer c.slot.Release()
	}
	return c.StreamingHandlerConn.Send(message)
}
