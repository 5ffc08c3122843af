package intercept

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

// Deadline sees to it that no unary call runs for ever. Streams last as long as
// their callers want.
type Deadline struct {
	serverOnly

	longest time.Duration
}

// NewDeadline returns an interceptor that gives unary calls at most the duration,
// whatever their callers ask for.
func NewDeadline(longest time.Duration) *Deadline { return &Deadline{longest: longest} }

// WrapUnary bounds the call's time.
func (d *Deadline) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, d.longest)
		defer cancel()
		return next(ctx, req)
	}
}

// WrapStreamingHandler returns next as it is.
func (d *Deadline) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
