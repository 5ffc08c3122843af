package auth

import "time"

// Kind is how a caller was recognized.
type Kind uint8

// The kinds.
const (
	Anonymous   Kind = iota // not at all
	Token                   // by a bearer token
	Certificate             // by a client certificate
)

// String names the kind for logs.
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

// Caller is who makes a call. The zero Caller is nobody and may do nothing.
type Caller struct {
	// Subject names the caller in the log and owns its request ids: the "sub" of a
	// token, or "cert:" and a name from a certificate. At most 255 bytes, without
	// control characters. Empty: nobody is known.
	Subject string
	// Kind is how the caller was recognized.
	Kind Kind
	// Permissions are what the caller may do.
	Permissions Permissions
	// Expires is when the credentials do: calls made before may end, streams end
	// then. Zero: never.
	Expires time.Time
}

// StreamEnd returns when a stream that begins now must end: when the credentials expire.
// Within the clock-skew leeway after that a stream begins as any call does, and ends with
// the leeway. Zero: never.
func (c Caller) StreamEnd(now time.Time) time.Time {
	if c.Kind == Certificate || c.Expires.IsZero() || now.Before(c.Expires) {
		return c.Expires
	}
	return c.Expires.Add(skew)
}

// Everybody is the caller where authentication is off: nobody is known, and everything
// is allowed. It is for development on a loopback address.
func Everybody() Caller { return Caller{Permissions: AllPermissions()} }
