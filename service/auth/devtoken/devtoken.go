// Package devtoken creates bearer tokens for development.
package devtoken

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/yourorg/userservice/service/auth"
)

// Issuer and audience of development tokens. A server that accepts them is configured with
// these values.
const (
	Issuer   = "userd-development"
	Audience = "userd"

	keyFile  = "userd-development-key.pem"
	jwksFile = "userd-development-jwks.json"
)

// New returns a signed token and the path of the JWK set that
// verifies it. The Ed25519 key is stored in dir with mode 0600 and created on first use. A
// key file that is readable or owned by other users is rejected. Other keys in the JWK set are
// kept. An unknown permission is an error.
//
// Not for production: every process that can read the key can issue tokens for any subject.
func New(dir, subject string, permissions []string, ttl time.Duration) (token, jwksPath string, err error) {
	if !auth.ValidSubject(subject) {
		return "", "", fmt.Errorf("invalid subject %q", subject)
	}
	for _, p := range permissions {
		if auth.PermissionsOf(auth.Permission(p)) == 0 {
			return "", "", fmt.Errorf("unknown permission %q", p)
		}
	}
	if ttl <= 0 {
		return "", "", errors.New("ttl: must be positive")
	}
	key, err := loadKey(filepath.Join(dir, keyFile))
	if err != nil {
		return "", "", fmt.Errorf("development key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", "", fmt.Errorf("development key thumbprint: %w", err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint) // RFC 7638
	jwksPath = filepath.Join(dir, jwksFile)
	if err := writeJWKS(jwksPath, jwk); err != nil {
		return "", "", fmt.Errorf("write development JWK set: %w", err)
	}
	now := time.Now()
	token, err = signToken(key, jwk.KeyID, map[string]any{
		"iss": Issuer, "aud": Audience, "sub": subject,
		"iat": now.Unix(), "exp": now.Add(ttl).Unix(), "permissions": permissions,
	})
	return token, jwksPath, err
}

func signToken(key ed25519.PrivateKey, keyID string, payload map[string]any) (string, error) {
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", keyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, options)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	signed, err := signer.Sign(body)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed.CompactSerialize()
}
