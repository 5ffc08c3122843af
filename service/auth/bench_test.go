package auth_test

import (
	"crypto"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
)

// BenchmarkMiddleware measures authentication with a new and with a cached token.
func BenchmarkMiddleware(b *testing.B) {
	keys := must(auth.NewKeys(auth.KeysOptions{
		Location: writeFile(b, "jwks.json", jwks(map[string]crypto.Signer{"rsa": rsaKey(), "ec": ecKey(), "ed": edKey()})),
		Logger:   new(logged).logger(),
	}))
	if err := keys.Load(b.Context()); err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	call := func(v *auth.Verifier, token string) func() {
		a := must(auth.NewAuthenticator(auth.Options{Tokens: v}))
		handler := auth.Middleware(auth.MiddlewareOptions{Authenticate: a.Authenticate, Policy: auth.NewPolicy(auth.ReflectionOff)})(
			http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if auth.FromContext(r.Context()).Subject != "ann" {
					b.Error("caller not authenticated")
				}
			}))
		request := httptest.NewRequestWithContext(b.Context(), http.MethodPost, userv1connect.UserServiceGetUserProcedure, http.NoBody)
		request.Header.Set("Authorization", "Bearer "+token)
		return func() { handler.ServeHTTP(nil, request) }
	}
	verifier := func() *auth.Verifier {
		return must(auth.NewVerifier(auth.VerifierOptions{Keys: keys, Issuer: issuer, Audience: audience}))
	}
	for _, row := range []struct {
		name, token string
	}{
		{"RS256", sign(rsaKey(), "RS256", head("RS256", "rsa"), goodClaims(now))},
		{"ES256", sign(ecKey(), "ES256", head("ES256", "ec"), goodClaims(now))},
		{"EdDSA", sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(now))},
	} {
		b.Run("new/"+row.name, func(b *testing.B) {
			for b.Loop() {
				call(verifier(), row.token)()
			}
		})
		b.Run("cached/"+row.name, func(b *testing.B) {
			again := call(verifier(), row.token)
			for b.Loop() {
				again()
			}
		})
	}
}
