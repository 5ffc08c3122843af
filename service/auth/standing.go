package auth

import (
	"context"
	"net/http"
	"sync/atomic"
)

// standing is a caller in a context, and by what he may be asked for again: a stream
// may last longer than the reasons for which it was let in.
type standing struct {
	caller Caller
	used   atomic.Uint32 // the permissions that something was let through for

	request      *http.Request
	authenticate func(*http.Request) (Caller, error) // nil: he stays who he is
}

type standingKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, standingKey{}, &standing{caller: c})
}

// FromContext returns the caller, the zero Caller where none is known.
func FromContext(ctx context.Context) Caller {
	if s := standingOf(ctx); s != nil {
		return s.caller
	}
	return Caller{}
}

func standingOf(ctx context.Context) *standing {
	s, _ := ctx.Value(standingKey{}).(*standing)
	return s
}

// use reports whether the caller has the permission, and notes that it counted.
func (s *standing) use(p Permission) bool {
	if s == nil || !s.caller.Permissions.Has(p) {
		return false
	}
	s.used.Or(uint32(p.bit()))
	return true
}

// AskAgain returns nil if the caller in the context would still be let in, as the one who
// he was, and has every permission that Require has found him to have. Errors:
// *RefusedError, and as those of Require.
func AskAgain(ctx context.Context) error {
	s := standingOf(ctx)
	if s == nil || s.authenticate == nil {
		return nil
	}
	now, err := s.authenticate(s.request)
	switch {
	case err != nil:
		return asRefused(err)
	case now.Subject != s.caller.Subject:
		return refuse(CauseOther, nil)
	}
	for _, p := range Permissions(s.used.Load()).List() {
		if !now.Permissions.Has(p) {
			return newPermissionError(p)
		}
	}
	return nil
}
