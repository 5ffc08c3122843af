package auth

import "time"

// Kind is the authentication method of a caller.
type Kind uint8

// Kinds of callers.
const (
	Anonymous   Kind = iota // not authenticated
	Token                   // bearer token
	Certificate             // client certificate
)

// String returns the name used in logs.
func (k Kind) String() string {
	switch k {
	case Token:
		return "token"
	case Certificate:
		return "certificate"
	default:
		return "anonymous"
	}
}

// Caller is the authenticated caller of a request. The zero Caller is anonymous and has
// no permissions.
type Caller struct {
	// Subject is the "sub" claim of a token, or "cert:" and a name from a certificate. It
	// is logged and scopes request ids. At most 255 bytes, no control characters, empty
	// if anonymous.
	Subject     string
	Kind        Kind
	Permissions Permissions
	// Expires is the time at which the credentials expire; zero means never. A call that
	// started earlier may finish, a stream ends at that time.
	Expires time.Time
}

// StreamEnd returns the time at which a stream that starts now must end: the expiry of the
// credentials. A stream that starts within the clock-skew leeway after the expiry ends with
// the leeway. Zero means never.
func (c Caller) StreamEnd(now time.Time) time.Time {
	if c.Kind == Certificate || c.Expires.IsZero() || now.Before(c.Expires) {
		return c.Expires
	}
	return c.Expires.Add(skew)
}

// FullAccess returns the caller used when authentication is disabled: anonymous, with every
// permission. It is for development on a loopback address.
func FullAccess() Caller { return Caller{Permissions: AllPermissions()} }
