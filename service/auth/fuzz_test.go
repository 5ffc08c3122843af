package auth_test

import (
	"crypto"
	"strings"
	"testing"
	"time"
)

// FuzzToken modifies a valid token. The result is rejected with a known cause unless it is
// signed correctly and has the same claims.
func FuzzToken(f *testing.F) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	good := sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(now))
	parts := strings.Split(good, ".")
	f.Add(parts[0], parts[1], parts[2])
	f.Add(encode(head("none", "ed")), parts[1], "")
	f.Add(encode(head("HS256", "ed")), parts[1], parts[2])
	f.Add(encode(`{"alg":"EdDSA","alg":"none"}`), parts[1], parts[2])
	f.Add(encode(strings.Repeat("[", 1000)), encode(strings.Repeat("{", 1000)), parts[2])
	set := jwks(map[string]crypto.Signer{"ed": edKey()})
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		v := newVerifier(t, set, func() time.Time { return now })
		got := cause(t.Context(), v, header+"."+payload+"."+signature)
		if got == "" && (header != parts[0] || payload != parts[1]) {
			t.Errorf("accepted %s.%s.%s", header, payload, signature)
		}
		if strings.HasPrefix(string(got), "not a refusal") {
			t.Errorf("cause = %q", got)
		}
	})
}
