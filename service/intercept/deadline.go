package intercept

import (
	"context"
	"sync"
	"sync/atomic"
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
		call := &callContext{Context: ctx, deadline: time.Now().Add(d.limit)}
		defer call.end()
		return next(call, req) //nolint:contextcheck // derived from ctx
	}
}

// WrapStreamingHandler returns next unchanged: streams have no timeout.
func (d *Deadline) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// callContext is context.WithDeadline without a timer until Done is called. Most calls end without waiting for
// anything; the timer took a thirtieth of the CPU of GetUser.
type callContext struct {
	context.Context //nolint:containedctx // the parent

	deadline time.Time

	mu     sync.Mutex // held while timed is created, and by end
	timed  atomic.Pointer[timedContext]
	cancel context.CancelFunc // nil before timed is created
	ended  atomic.Bool
}

type timedContext struct{ context.Context } //nolint:containedctx // for atomic.Pointer

// context returns the context with the timer.
func (c *callContext) context() context.Context {
	if timed := c.timed.Load(); timed != nil {
		return timed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if timed := c.timed.Load(); timed != nil {
		return timed
	}
	var timed timedContext
	timed.Context, c.cancel = context.WithDeadline(c.Context, c.deadline)
	if c.ended.Load() {
		c.cancel()
	}
	c.timed.Store(&timed)
	return timed
}

// end cancels the context.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended.Store(true)
	if c.cancel != nil {
		c.cancel()
	}
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) {
	if parent, ok := c.Context.Deadline(); ok && parent.Before(c.deadline) {
		return parent, true
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.context().Done() }

// Err implements context.Context.
func (c *callContext) Err() error {
	if c.timed.Load() == nil && !c.ended.Load() && time.Now().Before(c.deadline) {
		return c.Context.Err()
	}
	return c.context().Err()
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if timed := c.timed.Load(); timed != nil {
		return timed.Value(key)
	}
	return c.Context.Value(key)
}
