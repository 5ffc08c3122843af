package fair

import "context"

type contextKey struct{}

// NewContext returns a context that carries the slot of a request.
func NewContext(ctx context.Context, t *Slot) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the slot of the request, nil where there is none.
func FromContext(ctx context.Context) *Slot {
	t, _ := ctx.Value(contextKey{}).(*Slot)
	return t
}
