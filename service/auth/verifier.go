package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"
)

// VerifierOptions say which tokens are taken.
type VerifierOptions struct {
	// Keys are what they may be signed with. Required.
	Keys *Keys
	// Issuer is the one "iss", Audience what "aud" must name. Required: a token for
	// another service, or from another issuer that shares keys, must not be taken.
	Issuer, Audience string
	// PermissionsClaim names the claim with the permissions: an array of texts, or one
	// text with spaces between. Empty: "permissions", or where there is none "scope".
	PermissionsClaim string
	Now              func() time.Time // nil: time.Now
}

// Verifier checks bearer tokens: JWTs in compact form, signed with RS256, PS256, ES256
// or EdDSA (Ed25519).
//
// A token that was found good is remembered, by its SHA-256 and as long as the keys stay
// what they are, because checking a signature may cost more than the call. Its times
// and its binding are looked at each time. It is safe for use by many goroutines.
type Verifier struct {
	opts VerifierOptions
	seen seen[keySet, identity]
}

// NewVerifier returns a verifier.
func NewVerifier(opts VerifierOptions) (*Verifier, error) {
	if opts.Keys == nil || opts.Issuer == "" || opts.Audience == "" {
		return nil, errors.New("tokens need keys, an issuer and an audience")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Verifier{opts: opts}, nil
}

// Verify returns who the token says is calling. peer is the certificate that the
// connection showed, which a token may be bound to; nil: it showed none. Errors are
// *RefusedError. It may wait for keys, within the context.
func (v *Verifier) Verify(ctx context.Context, token string, peer *x509.Certificate) (Caller, error) {
	id, err := v.identify(ctx, token)
	if err != nil {
		return Caller{}, err
	}
	if err := id.validAt(v.opts.Now()); err != nil {
		return Caller{}, err
	}
	if id.bound != nil && (peer == nil || sha256.Sum256(peer.Raw) != *id.bound) {
		return Caller{}, refuse(CauseBinding, nil)
	}
	return id.caller, nil
}

// identify checks all that does not change with time.
func (v *Verifier) identify(ctx context.Context, token string) (*identity, error) {
	if len(token) > MaxTokenBytes {
		return nil, refuse(CauseOversize, nil) // before it is even hashed
	}
	sum := sha256.Sum256([]byte(token))
	set, err := v.opts.Keys.current()
	if err == nil {
		if id := v.seen.get(sum, set); id != nil {
			return id, nil
		}
	}
	header, err := parseHeader(token)
	if err != nil {
		return nil, err
	}
	keys, set, err := v.opts.Keys.find(ctx, header.keyID, header.algorithm)
	switch {
	case err != nil:
		return nil, err
	case len(keys) == 0:
		return nil, refuse(CauseUnknownKey, nil)
	case header.keyID == "" && len(keys) > 1:
		return nil, refuse(CauseKeyID, errors.New("several keys would do, and the token names none"))
	}
	payload, err := verifySignature(token, header.algorithm, keys)
	if err != nil {
		return nil, err
	}
	members, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	id, err := v.identity(members)
	if err != nil {
		return nil, err
	}
	v.seen.put(sum, set, id)
	return id, nil
}
