package user

import "context"

type callerKey struct{}

// WithCaller returns a context whose reads and writes are attributed to the caller. A [Store]
// schedules callers round-robin. The key is a principal, or an address for an anonymous caller.
func WithCaller(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, callerKey{}, key)
}

// CallerFromContext returns the key of the caller. It is empty for background work, which is
// scheduled as one caller.
func CallerFromContext(ctx context.Context) string {
	key, _ := ctx.Value(callerKey{}).(string)
	return key
}
