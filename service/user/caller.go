package user

import "context"

type callerKey struct{}

// WithCaller returns a context whose reads and writes count for the caller: a [Store] serves
// callers in turn. The key is a principal, or an address where there is none.
func WithCaller(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, callerKey{}, key)
}

// CallerFromContext returns the key of the caller. It is empty for the program's own work, which counts
// as one caller.
func CallerFromContext(ctx context.Context) string {
	key, _ := ctx.Value(callerKey{}).(string)
	return key
}
