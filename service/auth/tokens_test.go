package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/yourorg/userservice/service/auth"
)

const (
	issuer   = "https://issuer.example"
	audience = "https://userd.example"
)

// The keys are shared, because generating an RSA key is slow.
var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	smallRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// as converts keys whose type the test knows.
func as[T any](v any) T {
	t, ok := v.(T)
	if !ok {
		panic(fmt.Sprintf("not %T but %T", t, v))
	}
	return t
}

type object map[string]any

// with returns a copy with one member replaced, or removed if value is nil.
func (o object) with(name string, value any) object {
	o = maps.Clone(o)
	if o[name] = value; value == nil {
		delete(o, name)
	}
	return o
}

// goodClaims returns claims that the verifier accepts.
func goodClaims(now time.Time) object {
	return object{
		"iss": issuer, "aud": audience, "sub": "ann", "permissions": []string{"users.read"},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

func encode(v any) string {
	switch v := v.(type) {
	case string:
		return base64.RawURLEncoding.EncodeToString([]byte(v))
	case []byte:
		return base64.RawURLEncoding.EncodeToString(v)
	}
	return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v)))
}

// sign signs a token with the given alg, valid or not. header and payload may be strings.
func sign(key any, algorithm string, header, payload any) string {
	input := encode(header) + "." + encode(payload)
	sum := sha256.Sum256([]byte(input))
	var signature []byte
	switch algorithm {
	case "RS256":
		signature = must(rsa.SignPKCS1v15(rand.Reader, as[*rsa.PrivateKey](key), crypto.SHA256, sum[:]))
	case "PS256":
		signature = must(rsa.SignPSS(rand.Reader, as[*rsa.PrivateKey](key), crypto.SHA256, sum[:],
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
	case "ES256":
		r, s, err := ecdsa.Sign(rand.Reader, as[*ecdsa.PrivateKey](key), sum[:])
		if err != nil {
			panic(err)
		}
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case "EdDSA":
		signature = ed25519.Sign(as[ed25519.PrivateKey](key), []byte(input))
	case "HS256":
		mac := hmac.New(sha256.New, as[[]byte](key))
		mac.Write([]byte(input))
		signature = mac.Sum(nil)
	}
	return input + "." + encode(signature)
}

func head(algorithm, keyID string) object {
	h := object{"alg": algorithm, "kid": keyID, "typ": "JWT"}
	if keyID == "" {
		delete(h, "kid")
	}
	return h
}

// jwks returns a JWK set of the public keys, by key id.
func jwks(keys map[string]crypto.Signer) []byte {
	var set jose.JSONWebKeySet
	for id, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: id, Use: "sig"})
	}
	if set.Keys == nil {
		return []byte(`{"keys": []}`)
	}
	return must(json.Marshal(set))
}

// logged collects log output.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// writeFile writes a file in a temporary directory.
func writeFile(t testing.TB, name string, body []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newVerifier returns a verifier that uses the JWK set.
func newVerifier(t *testing.T, set []byte, now func() time.Time) *auth.Verifier {
	t.Helper()
	keys, err := auth.NewKeys(auth.KeysOptions{
		Location: writeFile(t, "jwks.json", set), Now: now, Logger: new(logged).logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return verifierOf(t, keys, now)
}

func verifierOf(t *testing.T, keys *auth.Keys, now func() time.Time) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(auth.VerifierOptions{Keys: keys, Issuer: issuer, Audience: audience, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// cause returns the cause of a rejection, or "".
func cause(ctx context.Context, v *auth.Verifier, token string) auth.Cause {
	_, err := v.Verify(ctx, token, nil)
	return causeOf(err)
}

func causeOf(err error) auth.Cause {
	var refused *auth.RefusedError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refused):
		return refused.Cause
	}
	return auth.Cause("not a refusal: " + err.Error())
}
