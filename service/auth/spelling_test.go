package auth_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/auth"
)

// Tokens with non-canonical base64 are rejected.
func TestTokenIsCanonical(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v := newVerifier(t, jwks(map[string]crypto.Signer{"ed": edKey()}), func() time.Time { return now })
	// Header and payload get two unused bits; the signature has four.
	token := sign(edKey(), "EdDSA", `{"alg":"EdDSA","kid":"ed" }`, goodClaims(now).with("pad", "x"))
	if _, err := v.Verify(t.Context(), token, nil); err != nil {
		t.Fatal(err)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	others := 0
	for segment, text := range strings.Split(token, ".") {
		spellings := []string{text + "=", text + "==", text + "\n", text[:1] + "\r\n" + text[1:], text + "A"}
		for _, c := range alphabet {
			other := text[:len(text)-1] + string(c)
			a, errA := base64.RawURLEncoding.DecodeString(text)
			b, errB := base64.RawURLEncoding.DecodeString(other)
			if other != text && errA == nil && errB == nil && bytes.Equal(a, b) {
				spellings = append(spellings, other)
				others++
			}
		}
		for _, other := range spellings {
			segments := strings.Split(token, ".")
			segments[segment] = other
			if c, err := v.Verify(t.Context(), strings.Join(segments, "."), nil); err == nil {
				t.Errorf("segment %d as %q accepted: %+v", segment, other, c)
			}
		}
	}
	if others < 15 {
		t.Errorf("%d non-canonical variants tested, want at least 15", others)
	}
}

// A token with invalid Unicode is rejected. The decoder's replacement character is not
// mistaken for the subject.
func TestTokenMustBeUnicode(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v := newVerifier(t, jwks(map[string]crypto.Signer{"ed": edKey()}), func() time.Time { return now })
	claims := func(member string) string {
		return `{"iss":"` + issuer + `","aud":"` + audience + `","exp":1780318800,` + member + `}`
	}
	header := head("EdDSA", "ed")
	for name, row := range map[string]struct {
		header, payload any
		cause           auth.Cause
		subject         string
	}{
		"invalid UTF-8 in sub":           {header, claims("\"sub\":\"ann\xff\""), auth.CauseClaims, ""},
		"a surrogate as UTF-8":           {header, claims("\"sub\":\"ann\xed\xa0\x80\""), auth.CauseClaims, ""},
		"an overlong character":          {header, claims("\"sub\":\"ann\xc0\xaf\""), auth.CauseClaims, ""},
		"a high surrogate":               {header, claims(`"sub":"ann\ud800"`), auth.CauseClaims, ""},
		"a low surrogate":                {header, claims(`"sub":"ann\udc00"`), auth.CauseClaims, ""},
		"surrogates in the wrong order":  {header, claims(`"sub":"\udc00\ud800"`), auth.CauseClaims, ""},
		"a high surrogate and a letter":  {header, claims(`"sub":"\ud800a"`), auth.CauseClaims, ""},
		"a high surrogate and an escape": {header, claims(`"sub":"\ud800\n"`), auth.CauseClaims, ""},
		"two high surrogates":            {header, claims(`"sub":"\uD800\uD800\uDC00"`), auth.CauseClaims, ""},
		"a surrogate in a name":          {header, claims(`"sub":"ann","\ud800":1`), auth.CauseClaims, ""},
		"a surrogate in another claim":   {header, claims(`"sub":"ann","scope":"\ud800"`), auth.CauseClaims, ""},
		"a surrogate in the header":      {`{"alg":"EdDSA","kid":"ed","x":"\ud800"}`, claims(`"sub":"ann"`), auth.CauseMalformed, ""},
		"invalid UTF-8 in the header":    {"{\"alg\":\"EdDSA\",\"kid\":\"ed\xff\"}", claims(`"sub":"ann"`), auth.CauseMalformed, ""},
		"one name in two spellings":      {header, claims(`"sub":"ann","s\u0075b":"root"`), auth.CauseClaims, ""},
		"NUL":                            {header, claims(`"sub":"ann\u0000"`), auth.CauseSubject, ""},
		"a control character":            {header, claims(`"sub":"ann\u009f"`), auth.CauseSubject, ""},
		"an invisible character":         {header, claims(`"sub":"ann\u200b"`), auth.CauseSubject, ""},
		"a bidi control":                 {header, claims(`"sub":"\u202eann"`), auth.CauseSubject, ""},
		"a pair of surrogates":           {header, claims(`"sub":"ann\ud83d\ude00"`), "", "ann😀"},
		"an escaped backslash":           {header, claims(`"sub":"ann\\ud800"`), "", `ann\ud800`},
		"two escaped backslashes":        {header, claims(`"sub":"\\\\\u0061"`), "", `\\a`},
		"the replacement character":      {header, claims(`"sub":"ann\ufffd"`), "", "ann\ufffd"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := v.Verify(t.Context(), sign(edKey(), "EdDSA", row.header, row.payload), nil)
			if got := causeOf(err); got != row.cause || c.Subject != row.subject {
				t.Errorf("Verify() = %q, cause %q, want %q, cause %q", c.Subject, got, row.subject, row.cause)
			}
		})
	}
}

// Parts of a URI that url.Parse drops make it a different identity.
func TestCertificateURIIsCanonical(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	a, err := auth.NewAuthenticator(auth.Options{Certificates: loadRules(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	const good = "spiffe://example.org/ns/prod/sa/web"
	for uri, subject := range map[string]string{
		good:                                    "cert:" + good,
		"SPIFFE://Example.org/ns/prod/sa/web":   "cert:" + good,
		good + "#":                              "",
		good + "?":                              "",
		good + "?#":                             "",
		good + "#a":                             "",
		good + "/":                              "",
		"spiffe://example.org/ns/pr%6fd/sa/web": "",
		"spiffe://@example.org/ns/prod/sa/web":  "",
		"urn:example:client:7":                  "cert:urn:example:client:7",
		"URN:example:client:7":                  "cert:urn:example:client:7",
		"urn:example:client:7#":                 "",
	} {
		c, err := a.Authenticate(over(t, parsedLeaf(t, now, uri), true))
		if subject == "" && causeOf(err) != auth.CauseNoName || c.Subject != subject {
			t.Errorf("subject of a certificate with %q = %q, %v, want %q", uri, c.Subject, err, subject)
		}
	}
	c, err := a.Authenticate(over(t, parsedLeaf(t, now, good+"#", "spiffe://example.org/ns/test/sa/web"), true))
	if err != nil || c.Subject != "cert:spiffe://example.org/ns/test/sa/web" {
		t.Errorf("subject of the second URI = %q, %v", c.Subject, err)
	}
}

// parsedLeaf returns a certificate parsed from DER with the URIs as given.
func parsedLeaf(t *testing.T, now time.Time, uris ...string) *x509.Certificate {
	t.Helper()
	var names []asn1.RawValue
	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must(asn1.Marshal(names))}},
	}
	raw := must(x509.CreateCertificate(rand.Reader, template, template, ecKey().Public(), ecKey()))
	return must(x509.ParseCertificate(raw))
}
