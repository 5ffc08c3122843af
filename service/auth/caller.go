// Package auth says who is calling.
package auth

import "context"

// Caller is who makes a call.
type Caller struct {
	// Subject names the caller in the log and owns its request ids. Empty: nobody
	// is known.
	Subject string
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext returns the caller, the zero Caller where none is known.
func FromContext(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
