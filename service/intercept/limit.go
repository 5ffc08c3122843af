package intercept

import (
	"context"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/user"
)

const streamRetryAfter = time.Second

// StreamLimits is an interceptor that limits the open streams of one caller and the total
// message size of one client stream. Callers are identified by [user.CallerFromContext]. It is safe for
// concurrent use.
type StreamLimits struct {
	serverOnly

	opts StreamLimitOptions

	mu      sync.Mutex
	callers map[string]int // open streams by caller key
}

// StreamLimitOptions configure StreamLimits.
type StreamLimitOptions struct {
	// PerCaller is the maximum number of open streams of one caller. 0: no limit.
	PerCaller int
	// Bytes is the maximum total size of the messages of one client stream, after
	// decompression. 0: no limit.
	Bytes int64
}

// NewStreamLimits returns an interceptor with the limits. It belongs inside authorization, so
// that unauthorized callers do not use up streams.
func NewStreamLimits(opts StreamLimitOptions) *StreamLimits {
	return &StreamLimits{opts: opts, callers: make(map[string]int)}
}

// WrapUnary returns next unchanged.
func (l *StreamLimits) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler applies the limits.
func (l *StreamLimits) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := l.enter(ctx); err != nil {
			return err
		}
		defer l.leave(ctx)
		conn, err := l.open(ctx, conn)
		if err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// open reserves the memory of a stream, and returns its conn with the limit of its size.
func (l *StreamLimits) open(ctx context.Context, conn connect.StreamingHandlerConn) (connect.StreamingHandlerConn, error) {
	if budget.FromContext(ctx).Grow(budget.Stream, streamBytes) != nil {
		return nil, user.NewOverloadedError()
	}
	if l.opts.Bytes > 0 && conn.Spec().StreamType == connect.StreamTypeClient {
		conn = &sizedConn{StreamingHandlerConn: conn, limit: l.opts.Bytes}
	}
	return conn, nil
}

// streamBytes is the memory of a stream beyond that of its request.
const streamBytes = 2 << 10

func (l *StreamLimits) enter(ctx context.Context) error {
	if l.opts.PerCaller == 0 {
		return nil
	}
	caller := user.CallerFromContext(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.callers[caller] >= l.opts.PerCaller {
		return newTooManyStreamsError(l.opts.PerCaller)
	}
	l.callers[caller]++
	return nil
}

//go:noinline // for the stack of a waiting stream
func (l *StreamLimits) leave(ctx context.Context) {
	if l.opts.PerCaller == 0 {
		return
	}
	caller := user.CallerFromContext(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.callers[caller]--; l.callers[caller] == 0 {
		delete(l.callers, caller)
	}
}

// SubjectKey returns the key of an authenticated caller. It never equals the key of an address.
func SubjectKey(subject string) string { return "subject " + subject }

func newTooManyStreamsError(limit int) error {
	err := user.NewTooManyError(user.TooManyStreams, "streams are open", limit)
	err.RetryAfter = streamRetryAfter
	return err
}

type sizedConn struct {
	connect.StreamingHandlerConn

	limit, got int64
}

// Receive receives a message within the limit.
func (c *sizedConn) Receive(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return c.StreamingHandlerConn.Receive(message)
	}
	sized := &sizedMessage{Message: m}
	if err := c.StreamingHandlerConn.Receive(sized); err != nil {
		return err
	}
	c.got += int64(sized.bytes)
	if c.got > c.limit {
		limit := strconv.FormatInt(c.limit, 10)
		return &user.Error{
			Code: user.ResourceExhausted, Reason: user.TooManyItems,
			Message:  "stream items too large: limit is " + limit + " bytes in total",
			Metadata: map[string]string{"limit_bytes": limit},
		}
	}
	return nil
}

// sizedMessage records the encoded size of a message, as its codec reports it.
type sizedMessage struct {
	proto.Message

	bytes int
}

// SetWireSize records the encoded size.
func (m *sizedMessage) SetWireSize(bytes int) { m.bytes = bytes }
