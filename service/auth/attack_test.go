package auth_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/user"
)

// TestAttacks has one row for each known attack on JWT verification. Each token is rejected
// with the expected cause, with a JWK set that contains every key type.
func TestAttacks(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	set := jwks(map[string]crypto.Signer{
		"rsa": rsaKey(), "ec": ecKey(), "ed": edKey(), "small": smallRSA(), "p384": ec384(),
	})
	v := newVerifier(t, set, func() time.Time { return now })

	good := goodClaims(now)
	ed := func(header, payload any) string { return sign(edKey(), "EdDSA", header, payload) }
	withClaim := func(name string, value any) string { return ed(head("EdDSA", "ed"), good.with(name, value)) }
	withHeader := func(name string, value any) string { return ed(head("EdDSA", "ed").with(name, value), good) }
	seconds := func(d time.Duration) int64 { return now.Add(d).Unix() }

	rsaDER := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	rsaPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: rsaDER})
	rsaJWK := must(json.Marshal(jose.JSONWebKey{Key: rsaKey().Public(), KeyID: "rsa", Use: "sig"}))
	ownJWK := jose.JSONWebKey{Key: otherRSA().Public(), KeyID: "rsa"}
	parts := strings.Split(ed(head("EdDSA", "ed"), good), ".")

	for _, row := range []struct {
		name  string
		token string
		cause auth.Cause
	}{
		{"none", sign(nil, "none", head("none", "ed"), good), auth.CauseAlgorithm},
		{"none in other case", sign(nil, "none", head("nOnE", "ed"), good), auth.CauseAlgorithm},
		{"none with a good signature", parts[0][:0] + encode(head("none", "ed")) + "." + parts[1] + "." + parts[2], auth.CauseAlgorithm},
		{"no algorithm", ed(head("EdDSA", "ed").with("alg", nil), good), auth.CauseAlgorithm},
		{"an algorithm that is no text", ed(head("EdDSA", "ed").with("alg", []string{"EdDSA"}), good), auth.CauseAlgorithm},
		{"HS256 with the public key as PEM", sign(rsaPEM, "HS256", head("HS256", "rsa"), good), auth.CauseAlgorithm},
		{"HS256 with the public key as DER", sign(rsaDER, "HS256", head("HS256", "rsa"), good), auth.CauseAlgorithm},
		{"HS256 with the public key as JWK", sign(rsaJWK, "HS256", head("HS256", "rsa"), good), auth.CauseAlgorithm},
		{"HS256 with nothing", sign([]byte{}, "HS256", head("HS256", "rsa"), good), auth.CauseAlgorithm},
		{"unsupported algorithm", sign(rsaKey(), "RS256", head("RS512", "rsa"), good), auth.CauseAlgorithm},
		{"an RSA key for ES256", sign(ecKey(), "ES256", head("ES256", "rsa"), good), auth.CauseUnknownKey},
		{"an EC key for RS256", sign(rsaKey(), "RS256", head("RS256", "ec"), good), auth.CauseUnknownKey},
		{"an Ed25519 key for ES256", sign(ecKey(), "ES256", head("ES256", "ed"), good), auth.CauseUnknownKey},
		{"RS256 that says PS256", sign(rsaKey(), "RS256", head("PS256", "rsa"), good), auth.CauseSignature},
		{"a small RSA key", sign(smallRSA(), "RS256", head("RS256", "small"), good), auth.CauseUnknownKey},

		{"a key of its own", sign(otherRSA(), "RS256", head("RS256", "rsa").with("jwk", ownJWK), good), auth.CauseEmbeddedKey},
		{"jku", withHeader("jku", "https://evil.example/keys"), auth.CauseEmbeddedKey},
		{"x5u", withHeader("x5u", "https://evil.example/chain"), auth.CauseEmbeddedKey},
		{"x5c", withHeader("x5c", []string{"MIIB"}), auth.CauseEmbeddedKey},
		{"x5c that is empty", withHeader("x5c", []string{}), auth.CauseEmbeddedKey},

		{"unknown kid", ed(head("EdDSA", "other"), good), auth.CauseUnknownKey},
		{"kid as a path", ed(head("EdDSA", "../../../../dev/null"), good), auth.CauseUnknownKey},
		{"kid as a query", ed(head("EdDSA", "ed' OR '1'='1"), good), auth.CauseUnknownKey},
		{"kid as a URL", ed(head("EdDSA", "https://evil.example/key"), good), auth.CauseUnknownKey},
		{"kid of an unsupported key", ed(head("EdDSA", "p384"), good), auth.CauseUnknownKey},
		{"kid that is a number", withHeader("kid", 1), auth.CauseKeyID},
		{"kid that is empty", ed(head("EdDSA", "ed").with("kid", ""), good), auth.CauseKeyID},
		{"kid that is null", ed(`{"alg":"EdDSA","kid":null}`, good), auth.CauseKeyID},
		{"kid that is long", ed(head("EdDSA", strings.Repeat("k", 300)), good), auth.CauseKeyID},
		{"two kids", ed(`{"alg":"EdDSA","kid":"ed","kid":"rsa"}`, good), auth.CauseMalformed},
		{"two algorithms", ed(`{"alg":"EdDSA","alg":"none","kid":"ed"}`, good), auth.CauseMalformed},

		{"crit", withHeader("crit", []string{"exp"}), auth.CauseCritical},
		{"crit that is empty", withHeader("crit", []string{}), auth.CauseCritical},
		{"b64 with crit", ed(head("EdDSA", "ed").with("b64", false).with("crit", []string{"b64"}), good), auth.CauseCritical},
		{"b64", withHeader("b64", false), auth.CauseCritical},
		{"another type", withHeader("typ", "logout+jwt"), auth.CauseType},
		{"a type that is no text", withHeader("typ", 1), auth.CauseType},

		{"oversize", withClaim("padding", strings.Repeat("x", auth.MaxTokenBytes)), auth.CauseOversize},
		{"empty", "", auth.CauseMalformed},
		{"dots", "..", auth.CauseMalformed},
		{"two parts", parts[0] + "." + parts[1], auth.CauseMalformed},
		{"five parts, as if encrypted", strings.Join([]string{parts[0], "a", "b", "c", "d"}, "."), auth.CauseMalformed},
		{"in JSON form", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, auth.CauseMalformed},
		{"header with padding", parts[0] + "=." + parts[1] + "." + parts[2], auth.CauseMalformed},
		{"header that is null", ed("null", good), auth.CauseMalformed},
		{"header that is a list", ed("[]", good), auth.CauseMalformed},

		{"no signature", parts[0] + "." + parts[1] + ".", auth.CauseSignature},
		{"another's signature", sign(otherRSA(), "RS256", head("RS256", "rsa"), good), auth.CauseSignature},
		{"another payload", parts[0] + "." + encode(good.with("sub", "root")) + "." + parts[2], auth.CauseSignature},
		{"zero signature (CVE-2022-21449)", strings.Join(strings.Split(sign(ecKey(), "ES256", head("ES256", "ec"), good), ".")[:2], ".") + "." + encode(make([]byte, 64)), auth.CauseSignature},

		{"expired", withClaim("exp", seconds(-61*time.Second)), auth.CauseExpired},
		{"no exp", withClaim("exp", nil), auth.CauseClaims},
		{"exp that is text", withClaim("exp", "4102444800"), auth.CauseClaims},
		{"exp that is null", ed(head("EdDSA", "ed"), `{"iss":"`+issuer+`","aud":"`+audience+`","sub":"ann","exp":null}`), auth.CauseClaims},
		{"exp beyond all dates", withClaim("exp", math.MaxFloat64), auth.CauseClaims},
		{"exp below all dates", withClaim("exp", -1), auth.CauseClaims},
		{"two exps", ed(head("EdDSA", "ed"), `{"exp":1,"exp":4102444800}`), auth.CauseClaims},
		{"not yet valid", withClaim("nbf", seconds(61*time.Second)), auth.CauseNotYetValid},
		{"issued in the future", withClaim("iat", seconds(61*time.Second)), auth.CauseNotYetValid},
		{"another issuer", withClaim("iss", issuer+"/"), auth.CauseIssuer},
		{"issuer in other case", withClaim("iss", strings.ToUpper(issuer)), auth.CauseIssuer},
		{"no issuer", withClaim("iss", nil), auth.CauseClaims},
		{"another audience", withClaim("aud", "https://other.example"), auth.CauseAudience},
		{"several other audiences", withClaim("aud", []string{"a", "b"}), auth.CauseAudience},
		{"no audience", withClaim("aud", nil), auth.CauseClaims},
		{"empty audience", withClaim("aud", []string{}), auth.CauseAudience},
		{"no subject", withClaim("sub", nil), auth.CauseSubject},
		{"empty subject", withClaim("sub", ""), auth.CauseSubject},
		{"subject that forges a line", withClaim("sub", "ann\nlevel=ERROR"), auth.CauseSubject},
		{"subject of a certificate", withClaim("sub", "cert:spiffe://example.org/admin"), auth.CauseSubject},
		{"subject that is long", withClaim("sub", strings.Repeat("s", 256)), auth.CauseSubject},
		{"permissions that are a number", withClaim("permissions", 7), auth.CauseClaims},
		{"permissions that are an object", withClaim("permissions", object{"users.read": true}), auth.CauseClaims},
		{"payload that is no object", ed(head("EdDSA", "ed"), "[]"), auth.CauseClaims},
		{"payload that is null", ed(head("EdDSA", "ed"), "null"), auth.CauseClaims},
		{"bound to a certificate", withClaim("cnf", object{"x5t#S256": encode(make([]byte, sha256.Size))}), auth.CauseBinding},
		{"bound to a key", withClaim("cnf", object{"jkt": "abc"}), auth.CauseBinding},
		{"bound to both", withClaim("cnf", object{"jkt": "abc", "x5t#S256": encode(make([]byte, sha256.Size))}), auth.CauseBinding},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 2 { // a cached result must not differ
				_, err := v.Verify(t.Context(), row.token, nil)
				if got := causeOf(err); got != row.cause {
					t.Fatalf("cause = %q, want %q", got, row.cause)
				}
				want := user.CredentialsInvalid
				if row.cause == auth.CauseExpired {
					want = user.CredentialsExpired
				}
				userErr, ok := user.AsError(err)
				if !ok || userErr.Code != user.Unauthenticated || userErr.Reason != want {
					t.Fatalf("Verify error = %+v, want reason %s", userErr, want)
				}
			}
		})
	}
}

func TestGoodTokens(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v := newVerifier(t, jwks(map[string]crypto.Signer{"rsa": rsaKey(), "ec": ecKey(), "ed": edKey()}),
		func() time.Time { return now })
	good := goodClaims(now)
	ed := func(payload object) string { return sign(edKey(), "EdDSA", head("EdDSA", "ed"), payload) }
	read := auth.PermissionsOf(auth.UsersRead)
	for _, row := range []struct {
		name  string
		token string
		may   auth.Permissions
	}{
		{"RS256", sign(rsaKey(), "RS256", head("RS256", "rsa"), good), read},
		{"PS256", sign(rsaKey(), "PS256", head("PS256", "rsa"), good), read},
		{"ES256", sign(ecKey(), "ES256", head("ES256", "ec"), good), read},
		{"EdDSA", ed(good), read},
		{"without kid, where one key fits", sign(edKey(), "EdDSA", head("EdDSA", ""), good), read},
		{"an access token", sign(edKey(), "EdDSA", head("EdDSA", "ed").with("typ", "at+JWT"), good), read},
		{"no type", sign(edKey(), "EdDSA", head("EdDSA", "ed").with("typ", nil), good), read},
		{"a thumbprint in the header", sign(edKey(), "EdDSA", head("EdDSA", "ed").with("x5t", "abc"), good), read},
		{"one of several audiences", ed(good.with("aud", []string{"a", audience})), read},
		{"expired within the skew", ed(good.with("exp", now.Add(-59*time.Second).Unix())), read},
		{"not yet valid within the skew", ed(good.with("nbf", now.Add(59*time.Second).Unix())), read},
		{"without nbf and iat", ed(good.with("nbf", nil).with("iat", nil)), read},
		{"a fraction of a second", ed(good.with("exp", float64(now.Unix())+0.5)), read},
		{"scope", ed(good.with("permissions", nil).with("scope", "openid users.read  users.write")), read | auth.PermissionsOf(auth.UsersWrite)},
		{"permissions before scope", ed(good.with("scope", "users.write")), read},
		{"permissions as one text", ed(good.with("permissions", "users.read other.thing")), read},
		{"no permission", ed(good.with("permissions", []string{})), 0},
		{"no claim of permissions", ed(good.with("permissions", nil)), 0},
		{"unknown permissions", ed(good.with("permissions", []string{"USERS.READ", "*", "users.*"})), 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 2 {
				c, err := v.Verify(t.Context(), row.token, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.Subject != "ann" || c.Kind != auth.Token || c.Permissions != row.may || c.Expires.IsZero() {
					t.Fatalf("Verify() = %+v, want subject ann, permissions %v", c, row.may)
				}
			}
		})
	}
}

// A cached token is checked against the clock each time.
func TestCachedTokenExpires(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v := newVerifier(t, jwks(map[string]crypto.Signer{"ed": edKey()}), func() time.Time { return now })
	token := sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(now).with("exp", now.Add(time.Minute).Unix()))
	for _, step := range []struct {
		after time.Duration
		cause auth.Cause
	}{
		{0, ""}, {time.Minute + 59*time.Second, ""}, {2 * time.Minute, auth.CauseExpired}, {0, ""}, {-2 * time.Minute, auth.CauseNotYetValid},
	} {
		start := now
		now = now.Add(step.after)
		if got := cause(t.Context(), v, token); got != step.cause {
			t.Errorf("after %v: cause = %q, want %q", step.after, got, step.cause)
		}
		now = start
	}
}

// A bound token is rejected without its certificate, cached or not.
func TestBoundToken(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v := newVerifier(t, jwks(map[string]crypto.Signer{"ed": edKey()}), func() time.Time { return now })
	owner, thief := &x509.Certificate{Raw: []byte("owner")}, &x509.Certificate{Raw: []byte("thief")}
	sum := sha256.Sum256(owner.Raw)
	token := sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(now).with("cnf", object{"x5t#S256": encode(sum[:])}))
	for _, row := range []struct {
		peer  *x509.Certificate
		cause auth.Cause
	}{{owner, ""}, {thief, auth.CauseBinding}, {nil, auth.CauseBinding}, {owner, ""}} {
		_, err := v.Verify(t.Context(), token, row.peer)
		if got := causeOf(err); got != row.cause {
			t.Errorf("cause = %q, want %q", got, row.cause)
		}
	}
}

// A token without kid is rejected if several keys match.
func TestTokenWithoutKeyID(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v := newVerifier(t, jwks(map[string]crypto.Signer{"a": rsaKey(), "b": otherRSA()}), func() time.Time { return now })
	if got := cause(t.Context(), v, sign(rsaKey(), "RS256", head("RS256", ""), goodClaims(now))); got != auth.CauseKeyID {
		t.Errorf("cause = %q, want %q", got, auth.CauseKeyID)
	}
}

func TestVerifierNeedsIssuerAndAudience(t *testing.T) {
	keys := must(auth.NewKeys(auth.KeysOptions{Location: "jwks.json", Logger: new(logged).logger()}))
	for _, opts := range []auth.VerifierOptions{
		{Keys: keys, Issuer: issuer}, {Keys: keys, Audience: audience}, {Issuer: issuer, Audience: audience},
	} {
		if _, err := auth.NewVerifier(opts); err == nil {
			t.Errorf("NewVerifier(%+v) = nil error, want error", opts)
		}
	}
}
