package intercept

import (
	"context"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/user"
)

// streamRetry is when a caller with too many streams may try again. Some may have ended
// by then.
const streamRetry = time.Second

// StreamLimits bounds streams: how many one caller has open, and how many bytes of
// messages one client stream brings. It is safe for use by many goroutines.
//
// A caller is who the credentials say, or, where nobody is known, the peer's address.
type StreamLimits struct {
	serverOnly

	opts StreamLimitOptions

	mu   sync.Mutex
	open map[string]int // by caller; those without a stream are not in it
}

// StreamLimitOptions are the limits.
type StreamLimitOptions struct {
	// PerCaller is how many streams a caller may have open. 0: no limit.
	PerCaller int
	// Bytes is how large the messages of one client stream may be in all, as messages,
	// that is, after decompression. 0: no limit.
	Bytes int64
	// Peer gives what stands for a peer at an address with its port. Required.
	Peer func(addr string) string
}

// NewStreamLimits returns an interceptor that keeps the limits. It belongs inside what
// authorizes, so that nobody takes up a stream who may not.
func NewStreamLimits(opts StreamLimitOptions) *StreamLimits {
	return &StreamLimits{opts: opts, open: make(map[string]int)}
}

// WrapUnary returns next as it is.
func (l *StreamLimits) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler bounds streams.
func (l *StreamLimits) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if l.opts.PerCaller > 0 {
			caller := CallerKey(ctx, conn.Peer().Addr, l.opts.Peer)
			if !l.enter(caller) {
				return newTooManyStreamsError(l.opts.PerCaller)
			}
			defer l.leave(caller)
		}
		if budget.FromContext(ctx).Grow(budget.Stream, streamBytes) != nil {
			return user.NewOverloadedError()
		}
		if l.opts.Bytes > 0 && conn.Spec().StreamType == connect.StreamTypeClient {
			conn = &weighedConn{StreamingHandlerConn: conn, limit: l.opts.Bytes}
		}
		return next(ctx, conn)
	}
}

// streamBytes is what a stream takes beside its request: what it waits with, and a small
// page of the log.
const streamBytes = 12 << 10

func (l *StreamLimits) enter(caller string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[caller] >= l.opts.PerCaller {
		return false
	}
	l.open[caller]++
	return true
}

func (l *StreamLimits) leave(caller string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[caller]--; l.open[caller] == 0 {
		delete(l.open, caller)
	}
}

// CallerKey gives what stands for the caller in limits: the subject of the caller that
// the context carries, or what peer gives for the address.
func CallerKey(ctx context.Context, addr string, peer func(addr string) string) string {
	if subject := auth.FromContext(ctx).Subject; subject != "" {
		return SubjectKey(subject)
	}
	return peer(addr)
}

// SubjectKey returns the key of an authenticated caller. No address begins like it.
func SubjectKey(subject string) string { return "subject " + subject }

func newTooManyStreamsError(limit int) error {
	err := user.NewTooManyError(user.TooManyStreams, "streams are open", limit)
	err.RetryAfter = streamRetry
	return err
}

// weighedConn adds up the messages of a client stream.
type weighedConn struct {
	connect.StreamingHandlerConn

	limit, got int64
}

// Receive receives a message within the limit.
func (c *weighedConn) Receive(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return c.StreamingHandlerConn.Receive(message)
	}
	weighed := &weighedMessage{Message: m}
	if err := c.StreamingHandlerConn.Receive(weighed); err != nil {
		return err
	}
	c.got += int64(weighed.bytes)
	if c.got > c.limit {
		limit := strconv.FormatInt(c.limit, 10)
		return &user.Error{
			Code: user.ResourceExhausted, Reason: user.TooManyItems,
			Message:  "the items of the stream are larger than " + limit + " bytes in all",
			Metadata: map[string]string{"limit_bytes": limit},
		}
	}
	return nil
}

// weighedMessage learns from its codec how many bytes it had, spaces and all: the size of
// what was decoded would tell less.
type weighedMessage struct {
	proto.Message

	bytes int
}

// Weigh notes the bytes.
func (m *weighedMessage) Weigh(bytes int) { m.bytes = bytes }
