package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	// skew is the leeway for clock skew between issuer and server.
	skew = 60 * time.Second

	maxSubjectBytes = 255
	// latest is the last second of the year 9999 in Unix time.
	latest = 253402300799
)

// identity is the verified content of a token. It is immutable.
type identity struct {
	caller Caller
	from   time.Time // not valid before; zero: no limit
	// bound is the SHA-256 thumbprint of the certificate that the token is bound to
	// (RFC 8705, section 3.1), or nil.
	bound *[sha256.Size]byte
}

type claims map[string]json.RawMessage

func parseClaims(payload []byte) (claims, error) {
	if !isStrictText(payload) {
		return nil, newRefusedError(CauseClaims, errors.New("payload: must be valid UTF-8"))
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil || c == nil {
		return nil, newRefusedError(CauseClaims, errors.New("payload: must be a JSON object"))
	}
	return c, nil
}

// identity reads the registered claims (RFC 7519, section 4.1). It does not compare times
// with the clock, because the result is cached.
func (v *Verifier) identity(c claims) (*identity, error) {
	var issuer string
	if err := c.read("iss", &issuer); err != nil {
		return nil, err
	} else if issuer != v.opts.Issuer {
		return nil, newRefusedError(CauseIssuer, nil)
	}
	audience, err := c.list("aud", "")
	if err != nil {
		return nil, err
	} else if !slices.Contains(audience, v.opts.Audience) {
		return nil, newRefusedError(CauseAudience, nil)
	}
	id := &identity{caller: Caller{Kind: Token}}
	if err := id.readTimes(c); err != nil {
		return nil, err
	}
	if err := c.read("sub", &id.caller.Subject); err != nil || !ValidSubject(id.caller.Subject) {
		return nil, newRefusedError(CauseSubject, nil)
	}
	if id.caller.Permissions, err = v.permissions(c); err != nil {
		return nil, err
	}
	id.bound, err = c.binding()
	return id, err
}

func (id *identity) readTimes(c claims) error {
	expires, err := c.date("exp")
	if err != nil {
		return err
	}
	if expires.IsZero() {
		return newRefusedError(CauseClaims, errors.New("exp: required"))
	}
	id.caller.Expires = expires
	for _, name := range []string{"nbf", "iat"} {
		from, err := c.date(name)
		if err != nil {
			return err
		}
		if from.After(id.from) {
			id.from = from
		}
	}
	return nil
}

// validAt returns nil if the token is valid at now, with leeway for clock skew.
func (id *identity) validAt(now time.Time) error {
	switch {
	case !now.Before(id.caller.Expires.Add(skew)):
		return newRefusedError(CauseExpired, nil)
	case now.Add(skew).Before(id.from):
		return newRefusedError(CauseNotYetValid, nil)
	}
	return nil
}

// ValidSubject reports whether a token may have the subject.
func ValidSubject(s string) bool {
	return s != "" && len(s) <= maxSubjectBytes && utf8.ValidString(s) &&
		!strings.HasPrefix(s, certificatePrefix) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// permissions reads the permissions from the configured claim, or else from "permissions" or
// "scope" (RFC 8693, section 4.2). A token without these claims has no permissions.
func (v *Verifier) permissions(c claims) (Permissions, error) {
	names := []string{v.opts.PermissionsClaim}
	if names[0] == "" {
		names = []string{"permissions", "scope"}
	}
	for _, name := range names {
		if _, ok := c[name]; !ok {
			continue
		}
		list, err := c.list(name, " ")
		if err != nil {
			return 0, err
		}
		var set Permissions
		for _, p := range list {
			set |= Permission(p).bit()
		}
		return set, nil
	}
	return 0, nil
}

func (c claims) read(name string, dst any) error {
	raw, ok := c[name]
	if !ok || json.Unmarshal(raw, dst) != nil {
		return newRefusedError(CauseClaims, fmt.Errorf("%s: missing or of the wrong type", name))
	}
	return nil
}

// list reads a claim that is a string or an array of strings. A string is split at the
// separator, unless that is empty.
func (c claims) list(name, separator string) ([]string, error) {
	var list []string
	if json.Unmarshal(c[name], &list) == nil && list != nil {
		return list, nil
	}
	var text string
	if err := c.read(name, &text); err != nil {
		return nil, err
	}
	if separator == "" {
		return []string{text}, nil
	}
	return strings.Split(text, separator), nil
}

// date reads a NumericDate (RFC 7519, section 2). It returns the zero time if absent.
func (c claims) date(name string) (time.Time, error) {
	if _, ok := c[name]; !ok {
		return time.Time{}, nil
	}
	var seconds *float64
	if err := c.read(name, &seconds); err != nil {
		return time.Time{}, err
	}
	// NaN fails both comparisons.
	if seconds == nil || !(*seconds >= 0 && *seconds <= latest) {
		return time.Time{}, newRefusedError(CauseClaims, fmt.Errorf("%s: must be a NumericDate up to the year 9999", name))
	}
	whole, part := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(part*float64(time.Second))), nil
}

// binding reads the confirmation claim. A confirmation method other than x5t#S256 is
// rejected, not ignored, because the issuer relies on the binding (RFC 7800, section 3.1).
func (c claims) binding() (*[sha256.Size]byte, error) {
	if _, ok := c["cnf"]; !ok {
		return nil, nil
	}
	var members map[string]json.RawMessage
	if err := c.read("cnf", &members); err != nil {
		return nil, err
	}
	var thumbprint string
	if raw, ok := members["x5t#S256"]; !ok || len(members) != 1 || json.Unmarshal(raw, &thumbprint) != nil {
		return nil, newRefusedError(CauseBinding, errors.New("cnf: only x5t#S256 is supported"))
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(thumbprint)
	if err != nil || len(sum) != sha256.Size {
		return nil, newRefusedError(CauseBinding, errors.New("x5t#S256: must be a base64url SHA-256"))
	}
	return (*[sha256.Size]byte)(sum), nil
}
