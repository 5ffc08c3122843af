package auth

import (
	"context"
	"net/http"
	"sync/atomic"
)

// callerState is the caller in a request context, with the data to re-authenticate it: a
// stream can outlive the credentials and permissions with which it started.
type callerState struct {
	caller Caller
	used   atomic.Uint32 // permissions that were checked and granted

	request      *http.Request
	authenticate func(*http.Request) (Caller, error) // nil: not re-authenticated
}

type callerStateKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerStateKey{}, &callerState{caller: c})
}

// FromContext returns the caller in ctx, or the zero Caller.
func FromContext(ctx context.Context) Caller {
	if s := callerStateOf(ctx); s != nil {
		return s.caller
	}
	return Caller{}
}

func callerStateOf(ctx context.Context) *callerState {
	s, _ := ctx.Value(callerStateKey{}).(*callerState)
	return s
}

// use reports whether the caller has the permission, and records that it was granted.
func (s *callerState) use(p Permission) bool {
	if s == nil || !s.caller.Permissions.Has(p) {
		return false
	}
	s.used.Or(uint32(p.bit()))
	return true
}

// Reauthenticate authenticates the request of ctx again. It returns nil if the subject is the
// same and still has every permission that Require has granted. Errors are *RefusedError or
// those of Require.
func Reauthenticate(ctx context.Context) error {
	s := callerStateOf(ctx)
	if s == nil || s.authenticate == nil {
		return nil
	}
	now, err := s.authenticate(s.request)
	switch {
	case err != nil:
		return asRefused(err)
	case now.Subject != s.caller.Subject:
		return newRefusedError(CauseOther, nil)
	}
	for _, p := range Permissions(s.used.Load()).List() {
		if !now.Permissions.Has(p) {
			return newPermissionError(p)
		}
	}
	return nil
}
