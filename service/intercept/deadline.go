package intercept

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

// Deadline is an interceptor that bounds the duration of unary calls.
type Deadline struct {
	serverOnly

	limit time.Duration
}

// NewDeadline returns an interceptor with a maximum timeout for unary calls.
func NewDeadline(limit time.Duration) *Deadline { return &Deadline{limit: limit} }

// WrapUnary applies the timeout.
func (d *Deadline) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, d.limit)
		defer cancel()
		return next(ctx, req)
	}
}

// WrapStreamingHandler returns next unchanged: streams have no timeout.
func (d *Deadline) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
