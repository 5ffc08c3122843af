package auth

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/yourorg/userservice/service/reqinfo"
)

// State is the caller in a request context, with the data to re-authenticate it: a stream can
// outlive the credentials and permissions with which it started. The zero State is that of the zero
// Caller.
type State struct {
	caller Caller
	used   atomic.Uint32 // permissions that were checked and granted

	request      *http.Request
	authenticate func(*http.Request) (Caller, error) // nil: not re-authenticated
}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return reqinfo.With(ctx, &State{caller: c})
}

// FromContext returns the caller in ctx, or the zero Caller.
func FromContext(ctx context.Context) Caller { return callerStateOf(ctx).Caller() }

// Caller returns the caller, the zero Caller if s is nil.
func (s *State) Caller() Caller {
	if s == nil {
		return Caller{}
	}
	return s.caller
}

func callerStateOf(ctx context.Context) *State { return reqinfo.From[*State](ctx) }

// setCaller sets the caller in the State of the request.
func setCaller(r *http.Request, caller Caller, authenticate func(*http.Request) (Caller, error)) {
	s := callerStateOf(r.Context())
	s.caller, s.request, s.authenticate = caller, r, authenticate
}

// use reports whether the caller has the permission, and records that it was granted.
func (s *State) use(p Permission) bool {
	if s == nil || !s.caller.Permissions.Has(p) {
		return false
	}
	if bit := uint32(p.bit()); s.used.Load()&bit == 0 {
		s.used.Or(bit)
	}
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
