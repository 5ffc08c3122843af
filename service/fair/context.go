package fair

import (
	"context"

	"github.com/yourorg/userservice/service/reqinfo"
)

// NewContext returns a context that carries the slot of a request.
func NewContext(ctx context.Context, t *Slot) context.Context { return reqinfo.With(ctx, t) }

// FromContext returns the slot of the request, nil where there is none.
func FromContext(ctx context.Context) *Slot { return reqinfo.From[*Slot](ctx) }
