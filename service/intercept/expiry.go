package intercept

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/reqinfo"
)

// statusGrace is the time for sending the final status of an expired stream.
const statusGrace = 15 * time.Second

// reauthenticateInterval is the interval at which the caller of a stream is re-authenticated.
const reauthenticateInterval = 20 * time.Second

// Expiry is an interceptor that ends streams when the credentials of their caller expire or
// are revoked. Credentials are re-authenticated periodically. The context of the handler is
// then canceled, no more messages are sent or received, and the stream ends with
// CREDENTIALS_EXPIRED or the error of the re-authentication, whatever the handler returns. A
// client that does not read the status in time is disconnected.
//
// Clock-skew leeway applies when a call starts. A stream that starts before its token's exp
// ends exactly at exp.
type Expiry struct{ serverOnly }

// WrapUnary returns next unchanged: unary calls are bounded by Deadline.
func (Expiry) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler ends streams with their credentials.
func (Expiry) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if expires := streamEnd(ctx); !expires.IsZero() {
			return untilExpiry(ctx, conn, expires, next)
		}
		return next(ctx, conn)
	}
}

// streamEnd returns the time at which a stream of the caller must end; zero: none.
func streamEnd(ctx context.Context) time.Time { return auth.FromContext(ctx).StreamEnd(time.Now()) }

// untilExpiry calls next for a stream that ends at a time.
func untilExpiry(ctx context.Context, conn connect.StreamingHandlerConn, expires time.Time, next connect.StreamingHandlerFunc) error {
	c, err := newExpiringConn(ctx, conn, expires)
	if err != nil {
		return err
	}
	defer c.end()
	return c.result(next(c.ctx, c)) //nolint:contextcheck // derived from ctx
}

// newExpiringConn returns the conn of a stream that ends at a time. Its context ends with it.
func newExpiringConn(ctx context.Context, conn connect.StreamingHandlerConn, expires time.Time) (*expiringConn, error) {
	c := &expiringConn{StreamingHandlerConn: conn, expires: expires}
	if c.expired() {
		return nil, auth.NewExpiredError()
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(c.untilCheck(), c.check)
	return c, nil
}

// result returns the result of the stream for that of the handler.
func (c *expiringConn) result(err error) error {
	if ended := endError(c.ctx); err != nil && ended != nil {
		return ended
	}
	return err
}

// untilCheck returns the time until the credentials are checked again.
func (c *expiringConn) untilCheck() time.Duration {
	return min(reauthenticateInterval, time.Until(c.expires))
}

// check ends the stream if its credentials have expired or its caller would be rejected. A timer calls it, in place of a
// goroutine for each stream.
func (c *expiringConn) check() {
	if c.ctx.Err() != nil {
		return
	}
	err := c.err()
	if err == nil {
		err = auth.Reauthenticate(c.ctx)
	}
	if err != nil {
		c.cancel(&endedError{err})
		abortStream(c.ctx, c.Spec())
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() == nil {
		c.timer.Reset(c.untilCheck())
	}
}

// end releases the context and the timer.
func (c *expiringConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel(nil)
	c.timer.Stop()
}

func (c *expiringConn) expired() bool { return !time.Now().Before(c.expires) }

// endedError is the cancellation cause of a stream whose credentials ended.
type endedError struct{ error }

// Unwrap returns the error for the caller.
func (e *endedError) Unwrap() error { return e.error }

// endError returns the error with which a stream must end, nil if its credentials are valid.
func endError(ctx context.Context) error {
	var ended *endedError
	if ctx.Err() == nil || !errors.As(context.Cause(ctx), &ended) {
		return nil
	}
	return ended.error
}

// abortStream stops reading and writing a stream whose credentials ended.
func abortStream(ctx context.Context, spec connect.Spec) {
	body := reqinfo.From[Body](ctx)
	if body == nil {
		return
	}
	// A handler blocked in Receive does not observe its context. A client that has
	// half-closed the stream still gets the status.
	if spec.StreamType&connect.StreamTypeClient != 0 {
		body.StopReading()
	}
	// A client that reads slowly is not stalled, so a blocked write could last for hours.
	time.AfterFunc(statusGrace, body.StopWriting)
}

// expiringConn fails Send and Receive once the stream has ended.
type expiringConn struct {
	connect.StreamingHandlerConn

	ctx     context.Context //nolint:containedctx // Send has no context parameter
	cancel  context.CancelCauseFunc
	expires time.Time

	mu    sync.Mutex  // guards timer
	timer *time.Timer // until the next check
}

// err returns the error with which the stream ended, nil if it is open. It also compares the
// clock, because the timer can fire late.
func (c *expiringConn) err() error {
	if err := endError(c.ctx); err != nil {
		return err
	}
	if c.expired() {
		return auth.NewExpiredError()
	}
	return nil
}

// Send sends a message while the stream is open.
func (c *expiringConn) Send(message any) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.StreamingHandlerConn.Send(message)
}

// Share implements reqinfo.SharedLayer.
func (c *expiringConn) Share(_ any, sends *reqinfo.SharedSends) connect.StreamingHandlerConn {
	sends.Check = c.err
	return c.StreamingHandlerConn
}

// Receive receives a message while the stream is open.
func (c *expiringConn) Receive(message any) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.StreamingHandlerConn.Receive(message)
}

// Body in the context of a stream aborts its blocked reads and writes when its credentials expire.
// Without it, such a stream ends at its next message. Its methods are safe for concurrent use,
// also after the handler has returned.
type Body interface {
	// StopReading makes pending and later reads of the request body fail.
	StopReading()
	// StopWriting makes pending and later writes of the response fail.
	StopWriting()
}
