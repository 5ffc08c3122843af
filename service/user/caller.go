package user

import (
	"context"

	"github.com/yourorg/userservice/service/reqinfo"
)

// Caller identifies the caller of reads and writes in their context. A [Store] schedules callers
// round-robin.
type Caller interface {
	// CallerKey returns a principal, or an address for an anonymous caller.
	CallerKey() string
}

type callerKey string

// CallerKey implements Caller.
func (k callerKey) CallerKey() string { return string(k) }

// WithCaller returns a context whose reads and writes are attributed to the caller with the key.
func WithCaller(ctx context.Context, key string) context.Context {
	return reqinfo.With[Caller](ctx, callerKey(key))
}

// CallerFromContext returns the key of the caller. It is empty for background work, which is
// scheduled as one caller.
func CallerFromContext(ctx context.Context) string {
	if caller := reqinfo.From[Caller](ctx); caller != nil {
		return caller.CallerKey()
	}
	return ""
}
