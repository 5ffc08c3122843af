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
	// skew is how far the clocks of issuer and server may be apart.
	skew = 60 * time.Second

	maxSubjectBytes = 255
	// latest is the last second of the year 9999, for which there are still dates.
	latest = 253402300799
)

// identity is what a token says whose signature was found good. It does not change.
type identity struct {
	caller Caller
	from   time.Time // before it the token is not valid; zero: from ever
	// bound is the SHA-256 of the one certificate that the token may come with
	// (RFC 8705, section 3.1); nil: it is bound to none.
	bound *[sha256.Size]byte
}

// claims are the members of a payload.
type claims map[string]json.RawMessage

func parseClaims(payload []byte) (claims, error) {
	if !isStrictText(payload) {
		return nil, refuse(CauseClaims, errors.New("not valid Unicode"))
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil || c == nil {
		return nil, refuse(CauseClaims, errors.New("not an object"))
	}
	return c, nil
}

// identity reads the claims that count (RFC 7519, section 4.1). Times are read here and
// compared later, since a token is checked again whenever it comes.
func (v *Verifier) identity(c claims) (*identity, error) {
	var issuer string
	if err := c.read("iss", &issuer); err != nil {
		return nil, err
	} else if issuer != v.opts.Issuer {
		return nil, refuse(CauseIssuer, nil)
	}
	audience, err := c.list("aud", "")
	if err != nil {
		return nil, err
	} else if !slices.Contains(audience, v.opts.Audience) {
		return nil, refuse(CauseAudience, nil)
	}
	id := &identity{caller: Caller{Kind: Token}}
	if err := id.readTimes(c); err != nil {
		return nil, err
	}
	if err := c.read("sub", &id.caller.Subject); err != nil || !validSubject(id.caller.Subject) {
		return nil, refuse(CauseSubject, nil)
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
		return refuse(CauseClaims, errors.New("exp is missing"))
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

// validAt returns nil if the token is valid at a time, give or take the skew.
func (id *identity) validAt(now time.Time) error {
	switch {
	case !now.Before(id.caller.Expires.Add(skew)):
		return refuse(CauseExpired, nil)
	case now.Add(skew).Before(id.from):
		return refuse(CauseNotYetValid, nil)
	}
	return nil
}

// validSubject reports whether a text may name a caller in the log. The names of
// certificates are kept for certificates.
func validSubject(s string) bool {
	return s != "" && len(s) <= maxSubjectBytes && utf8.ValidString(s) &&
		!strings.HasPrefix(s, certificatePrefix) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// permissions reads what the caller may do: from the configured claim, or from
// "permissions", or from "scope" (RFC 8693, section 4.2). A token without any of them
// gives no permission.
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

func (c claims) read(name string, into any) error {
	raw, ok := c[name]
	if !ok || json.Unmarshal(raw, into) != nil {
		return refuse(CauseClaims, fmt.Errorf("%s is missing or of the wrong form", name))
	}
	return nil
}

// list reads a claim that is one text or an array of them. Where there is a separator,
// one text is taken apart.
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

// date reads a NumericDate (RFC 7519, section 2), the zero time if there is none.
func (c claims) date(name string) (time.Time, error) {
	if _, ok := c[name]; !ok {
		return time.Time{}, nil
	}
	var seconds *float64
	if err := c.read(name, &seconds); err != nil {
		return time.Time{}, err
	}
	// What is not a number at all compares as false.
	if seconds == nil || !(*seconds >= 0 && *seconds <= latest) {
		return time.Time{}, refuse(CauseClaims, fmt.Errorf("%s is no date", name))
	}
	whole, part := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(part*float64(time.Second))), nil
}

// binding reads what the token is bound to. Whoever issued a bound token counts on its
// being worth nothing to a thief, so a binding that is not known here is not passed over
// (RFC 7800, section 3.1).
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
		return nil, refuse(CauseBinding, errors.New("cnf has something else than x5t#S256"))
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(thumbprint)
	if err != nil || len(sum) != sha256.Size {
		return nil, refuse(CauseBinding, errors.New("x5t#S256 is no SHA-256"))
	}
	return (*[sha256.Size]byte)(sum), nil
}
