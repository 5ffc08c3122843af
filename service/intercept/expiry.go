package intercept

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
)

// Expiry ends streams when the credentials of their callers expire, with
// CREDENTIALS_EXPIRED: the context of the handler ends at that moment, for that cause,
// and whatever the handler makes of it, the caller is told of the cause.
//
// A token counts a little longer for a call that begins, since clocks differ. A stream
// gets nothing of that: it ends when its token says, and does not begin after.
type Expiry struct{ serverOnly }

// WrapUnary returns next as it is: a call lasts a minute at most.
func (Expiry) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler bounds streams.
func (Expiry) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		expires := auth.FromContext(ctx).Expires
		if expires.IsZero() {
			return next(ctx, conn)
		}
		expired := auth.ErrExpired()
		bounded, cancel := context.WithDeadlineCause(ctx, expires, expired)
		defer cancel()
		if bounded.Err() != nil {
			return context.Cause(bounded)
		}
		// A handler that waits for the caller's next message does not look at its
		// context. A caller who has no more to say is not kept from hearing the end.
		if body, ok := ctx.Value(bodyKey{}).(Body); ok && conn.Spec().StreamType&connect.StreamTypeClient != 0 {
			defer context.AfterFunc(bounded, func() {
				if errors.Is(context.Cause(bounded), expired) {
					body.StopReading()
				}
			})()
		}
		err := next(bounded, conn)
		if err != nil && errors.Is(context.Cause(bounded), expired) {
			return expired
		}
		return err
	}
}

// Body is the body of a request, as it comes in.
type Body interface {
	// StopReading makes the Read that waits fail, and every further one. It may be
	// called by any goroutine, also when the handler has returned.
	StopReading()
}

type bodyKey struct{}

// WithBody returns a context whose client and bidi streams Expiry can end while they
// wait for their callers. Without it such a stream ends at its next message.
func WithBody(ctx context.Context, b Body) context.Context {
	return context.WithValue(ctx, bodyKey{}, b)
}
