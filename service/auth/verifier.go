package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"
)

// VerifierOptions configure a Verifier.
type VerifierOptions struct {
	// Keys verify the signatures. Required.
	Keys *Keys
	// Issuer must equal "iss" and Audience must be in "aud". Both are required, so that
	// tokens of other issuers or for other services are rejected.
	Issuer, Audience string
	// PermissionsClaim is the claim with the permissions: an array of strings or a
	// space-separated string. Empty: "permissions", or if absent "scope".
	PermissionsClaim string
	Now              func() time.Time // nil: time.Now
}

// Verifier verifies bearer tokens: JWTs in compact form, signed with RS256, PS256, ES256 or
// EdDSA (Ed25519). It is safe for concurrent use.
//
// Verified tokens are cached by their SHA-256 while the key set stays the same, because
// verifying a signature can cost more than the call. The validity period and the certificate
// binding are checked each time.
type Verifier struct {
	opts  VerifierOptions
	cache cache[keySet, identity]
}

// NewVerifier returns a verifier.
func NewVerifier(opts VerifierOptions) (*Verifier, error) {
	if opts.Keys == nil || opts.Issuer == "" || opts.Audience == "" {
		return nil, errors.New("token verifier: keys, issuer and audience are required")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Verifier{opts: opts}, nil
}

// Verify returns the caller that a token identifies. peer is the client certificate of the
// connection, or nil; a token may be bound to it. Errors are of type *RefusedError. Verify may
// wait for a key reload until ctx is done.
func (v *Verifier) Verify(ctx context.Context, token string, peer *x509.Certificate) (Caller, error) {
	id, err := v.identify(ctx, token)
	if err != nil {
		return Caller{}, err
	}
	if err := id.validAt(v.opts.Now()); err != nil {
		return Caller{}, err
	}
	if id.bound != nil && (peer == nil || sha256.Sum256(peer.Raw) != *id.bound) {
		return Caller{}, newRefusedError(CauseBinding, nil)
	}
	return id.caller, nil
}

// identify performs the checks that do not depend on the time.
func (v *Verifier) identify(ctx context.Context, token string) (*identity, error) {
	if len(token) > MaxTokenBytes {
		return nil, newRefusedError(CauseOversize, nil) // before hashing it
	}
	sum := sha256.Sum256([]byte(token))
	set, err := v.opts.Keys.current()
	if err == nil {
		if id := v.cache.get(sum, set); id != nil {
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
		return nil, newRefusedError(CauseUnknownKey, nil)
	case header.keyID == "" && len(keys) > 1:
		return nil, newRefusedError(CauseKeyID, errors.New("kid: required when several keys match"))
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
	v.cache.put(sum, set, id)
	return id, nil
}
