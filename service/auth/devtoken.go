package auth

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
)

// Where a developer's own tokens come from and what they are for. A server that is to
// take them is told so.
const (
	DevelopmentIssuer   = "userd-development"
	DevelopmentAudience = "userd"

	developmentKeyFile  = "userd-development-key.pem"
	developmentJWKSFile = "userd-development-jwks.json"
)

// NewDevelopmentToken makes a token for trying the service out, signed with a key that
// it keeps in the folder, and returns it with the path of the JWK set that a server
// has to be given, beside DevelopmentIssuer and DevelopmentAudience. The key is made the
// first time (Ed25519, a file of mode 0600); it is refused if others can read it or have
// put it there. Who can read the folder's key can be anybody to that server: it is not
// for production. Other keys of the set stay in it.
// An unknown permission is an error.
func NewDevelopmentToken(
	dir, subject string, permissions []string, ttl time.Duration,
) (token, jwksPath string, err error) {
	if !validSubject(subject) {
		return "", "", fmt.Errorf("%q cannot be a subject", subject)
	}
	for _, p := range permissions {
		if Permission(p).bit() == 0 {
			return "", "", fmt.Errorf("there is no permission %q", p)
		}
	}
	if ttl <= 0 {
		return "", "", errors.New("the token would have expired already")
	}
	key, err := developmentKey(filepath.Join(dir, developmentKeyFile))
	if err != nil {
		return "", "", fmt.Errorf("development key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", "", fmt.Errorf("name the development key: %w", err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint) // RFC 7638
	jwksPath = filepath.Join(dir, developmentJWKSFile)
	if err := writeJWKS(jwksPath, jwk); err != nil {
		return "", "", fmt.Errorf("publish the development key: %w", err)
	}
	now := time.Now()
	token, err = signToken(key, jwk.KeyID, map[string]any{
		"iss": DevelopmentIssuer, "aud": DevelopmentAudience, "sub": subject,
		"iat": now.Unix(), "exp": now.Add(ttl).Unix(), "permissions": permissions,
	})
	return token, jwksPath, err
}

func signToken(key ed25519.PrivateKey, keyID string, payload map[string]any) (string, error) {
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", keyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, options)
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	signed, err := signer.Sign(body)
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	return signed.CompactSerialize()
}
