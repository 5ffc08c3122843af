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
		turns := t.newStream(ctx, conn)
		if conn.Spec().StreamType == connect.StreamTypeBidi {
			ctx = fair.NewContext(ctx, nil)
		}
		return next(ctx, turns)
	}
}

// newStream releases the slot of the request and returns the conn that acquires it for turns.
func (t Turns) newStream(ctx context.Context, conn connect.StreamingHandlerConn) *streamTurns {
	slot := fair.FromContext(ctx)
	slot.Release()
	turns := &streamTurns{StreamingHandlerConn: conn, slot: slot, in: reqinfo.From[Messages](ctx), out: reqinfo.From[Response](ctx)}
	header := conn.ResponseHeader()
	turns.packed = header.Get("Grpc-Encoding") != "" || header.Get("Connect-Content-Encoding") != ""
	if conn.Spec().StreamType == connect.StreamTypeServer {
		turns.control = reqinfo.From[reqinfo.FlushControl](ctx)
	}
	if turns.in == nil {
		return turns
	}
	switch kind := conn.Spec().StreamType; {
	case kind == connect.StreamTypeClient:
		turns.keeps = true
	case kind == connect.StreamTypeBidi && t.ReserveBidi:
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

	slot *fair.Slot
	in   Messages // nil: connect reads the messages
	out  Response // nil: messages are sent without turns
	// control is nil, or reports whether the handler of a server stream has more to send before it waits. It then keeps the slot
	// after a turn: what it does between two turns is more work than sending.
	control        reqinfo.FlushControl
	received, sent int64 // bytes since the last turn, and up to it
	// unpacked is the size of the messages since the last turn, if responses are compressed: what is written then does not show the
	// work.
	unpacked int64
	packed   bool
	// keeps is set for a client stream: its messages are handled in the slot, which is released while it waits for more and
	// after each turn. Messages that wait in the buffer would otherwise be handled without turns.
	keeps bool
	// memory is the reservation of a reflection stream, nil for others. Its responses are large and
	// expensive: each request is handled in a turn, and each response is reserved.
	memory *budget.Reservation
}

// Receive receives a message.
func (c *streamTurns) Receive(message any) error {
	switch {
	case c.memory != nil:
		c.slot.Release()
		c.in.Fetch()
		c.slot.Acquire()
	case c.keeps:
		if c.in.Fetch(); c.turnEnds() {
			c.slot.Release()
		}
		c.slot.Acquire()
	case c.in != nil:
		c.in.Fetch()
		defer c.slot.Release()
		if c.turnEnds() {
			c.slot.Acquire()
		}
	}
	return c.StreamingHandlerConn.Receive(message)
}

// turnEnds adds a message to those received, and reports whether they are more than a turn.
func (c *streamTurns) turnEnds() bool {
	if c.received += messageBytes + int64(c.in.Fetched()); c.received <= turnBytes {
		return false
	}
	c.received = 0
	return true
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
	if c.out != nil && !c.out.IsDirect() && c.sendTurnEnds(message) {
		c.slot.Release()
		c.slot.Acquire()
		if c.control == nil || !c.control.IsCorked() {
			defer c.slot.Release()
		}
	}
	return c.StreamingHandlerConn.Send(message)
}

// sendTurnEnds reports whether the messages since the last turn, with this one if it is compressed, are more than a turn.
func (c *streamTurns) sendTurnEnds(message any) bool {
	if m, ok := message.(proto.Message); ok && c.packed {
		if c.unpacked += int64(proto.Size(m)); c.unpacked <= turnBytes {
			return false
		}
		c.unpacked = 0
		return true
	}
	written := c.out.Written()
	if written-c.sent <= turnBytes {
		return false
	}
	c.sent = written
	return true
}

// Share implements reqinfo.SharedLayer.
func (c *streamTurns) Share(any, *reqinfo.SharedSends) connect.StreamingHandlerConn {
	if c.memory != nil {
		return nil
	}
	return c.StreamingHandlerConn
}
