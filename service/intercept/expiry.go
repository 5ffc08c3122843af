package intercept

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
)

// lastWords is how long a caller whose credentials have expired may take to be told so.
// After that, with what net/http still has to send, half a minute is over.
const lastWords = 15 * time.Second

// askEvery is how often it is asked whether the caller of a stream may still have it.
// With the time in which files are looked at, half a minute is over.
const askEvery = 20 * time.Second

// Expiry ends streams when the credentials of their callers expire, with
// CREDENTIALS_EXPIRED, and soon after their callers would not be let in any more, for the
// reason for which they would not: the context of the handler ends at that moment, for
// that cause; nothing more is sent or received; and whatever the handler makes of it, the
// caller is told of the cause. A reader who is too slow even for that is cut.
//
// Clock-skew leeway applies when a call starts, a stream as well as a unary call. A stream
// that starts before its token's exp ends exactly at exp.
type Expiry struct{ serverOnly }

// WrapUnary returns next as it is: a call lasts a minute at most.
func (Expiry) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler bounds streams.
func (Expiry) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		expires := auth.FromContext(ctx).StreamEnd(time.Now())
		if expires.IsZero() {
			return next(ctx, conn)
		}
		dated, cancel := context.WithDeadlineCause(ctx, expires, &endedError{auth.NewExpiredError()})
		defer cancel()
		if err := endOf(dated); err != nil {
			return err
		}
		bounded, end := context.WithCancelCause(dated)
		defer end(nil)
		defer askAgain(bounded, end)()
		hush := context.AfterFunc(bounded, func() { silence(bounded, conn.Spec()) })
		err := next(bounded, &endingConn{StreamingHandlerConn: conn, ctx: bounded, expires: expires})
		why := endOf(bounded)
		if hush() && why != nil {
			silence(bounded, conn.Spec()) // the handler was faster
		}
		if err != nil && why != nil {
			return why
		}
		return err
	}
}

// askAgain asks again and again who calls, until stop is called. A timer, and not a
// goroutine, waits with each stream.
func askAgain(ctx context.Context, end context.CancelCauseFunc) (stop func()) {
	var mu sync.Mutex // held while the timer is set
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(askEvery, func() {
		if ctx.Err() != nil {
			return
		}
		if err := auth.Reauthenticate(ctx); err != nil {
			end(&endedError{err})
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			timer.Reset(askEvery)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		end(nil)
		timer.Stop()
	}
}

// endedError is the cause of a context that ended because of its caller.
type endedError struct{ error }

// Unwrap gives what the caller is told.
func (e *endedError) Unwrap() error { return e.error }

// endOf returns why a stream has ended because of its caller, nil if it has not.
func endOf(ctx context.Context) error {
	var ended *endedError
	if ctx.Err() == nil || !errors.As(context.Cause(ctx), &ended) {
		return nil
	}
	return ended.error
}

// silence ends what goes on between the two sides of a stream that has ended.
func silence(ctx context.Context, spec connect.Spec) {
	end := endOf(ctx)
	if end == nil {
		return
	}
	if told, ok := ctx.Value(endKey{}).(func(error)); ok {
		told(end)
	}
	body, ok := ctx.Value(bodyKey{}).(Body)
	if !ok {
		return
	}
	// A handler that waits for the caller's next message does not look at its
	// context. A caller who has no more to say is not kept from hearing the end.
	if spec.StreamType&connect.StreamTypeClient != 0 {
		body.StopReading()
	}
	// Whoever takes a little now and then is not cut by the guard, and might hold the
	// one write that goes on for hours.
	time.AfterFunc(lastWords, body.StopWriting)
}

// endingConn is a stream that nothing passes any more when it has ended.
type endingConn struct {
	connect.StreamingHandlerConn

	ctx     context.Context //nolint:containedctx // the stream's own; Send is given none
	expires time.Time
}

// over returns why the stream has ended, nil while it lasts. The timer of the context may
// be late on a busy machine; the clock is not.
func (c *endingConn) over() error {
	if err := endOf(c.ctx); err != nil {
		return err
	}
	if !time.Now().Before(c.expires) {
		return auth.NewExpiredError()
	}
	return nil
}

// Send sends a message while the stream lasts. A handler that has many at hand does not
// look at its context in between.
func (c *endingConn) Send(message any) error {
	if err := c.over(); err != nil {
		return err
	}
	return c.StreamingHandlerConn.Send(message)
}

// Receive receives a message while the stream lasts.
func (c *endingConn) Receive(message any) error {
	if err := c.over(); err != nil {
		return err
	}
	return c.StreamingHandlerConn.Receive(message)
}

// Body is what the two sides of a call say. Its methods may be called by any goroutine,
// also when the handler has returned.
type Body interface {
	// StopReading makes the Read of the request that waits fail, and every further
	// one.
	StopReading()
	// StopWriting makes the Write of the answer that waits fail, and every further
	// one.
	StopWriting()
}

type bodyKey struct{}

// WithBody returns a context whose streams Expiry can end while they wait for their
// callers. Without it such a stream ends at its next message.
func WithBody(ctx context.Context, b Body) context.Context {
	return context.WithValue(ctx, bodyKey{}, b)
}

type endKey struct{}

// WithEnd returns a context whose stream's end, if it is because of its caller, is told
// to a function at once. It is for who keeps messages of the stream back: the caller
// must not have them any more.
func WithEnd(ctx context.Context, told func(error)) context.Context {
	return context.WithValue(ctx, endKey{}, told)
}
