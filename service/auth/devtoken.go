package auth

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
// first time (Ed25519, a file of mode 0600); it is refused if others can read it. Who can
// read the folder's key can be anybody to that server: it is not for production.
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

// developmentKey reads the key, or makes it where there is none.
func developmentKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return makeKey(path)
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %o): make it 600, or remove it to get a new one",
			path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path) //nolint:gosec // the developer names the folder
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM: remove it to get a new one", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no Ed25519 key: remove it to get a new one", path)
	}
	return key, nil
}

func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// The file is nobody else's from the first moment on.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the developer names the folder
	if err != nil {
		return nil, err
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	return key, errors.Join(err, f.Close())
}

// writeJWKS writes the set with the one key, unless it is there already. A server that
// reads it meanwhile sees all of it or nothing.
func writeJWKS(path string, key jose.JSONWebKey) error {
	body, err := json.MarshalIndent(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}}, "", "  ")
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, body) { //nolint:gosec // the developer names the folder
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
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
