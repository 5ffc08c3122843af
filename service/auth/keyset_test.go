package auth_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/yourorg/userservice/service/auth"
)

// Unusable keys are skipped and logged without key material.
func TestUnusableKeysAreSkipped(t *testing.T) {
	secret := "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
	private := must(json.Marshal(jose.JSONWebKey{Key: ecKey(), KeyID: "private"}))
	jwk := func(change func(*jose.JSONWebKey)) string {
		k := jose.JSONWebKey{Key: rsaKey().Public(), KeyID: "odd", Use: "sig"}
		change(&k)
		return string(must(json.Marshal(k)))
	}
	odd := []string{
		`{"kty":"oct","kid":"odd","k":"` + secret + `"}`,
		string(private),
		jwk(func(k *jose.JSONWebKey) { k.Use = "enc" }),
		jwk(func(k *jose.JSONWebKey) { k.Algorithm = "RS512" }),
		jwk(func(k *jose.JSONWebKey) { k.Algorithm = "ES256" }),
		strings.Replace(jwk(func(*jose.JSONWebKey) {}), `"use":"sig"`, `"key_ops":["encrypt"]`, 1),
		jwk(func(k *jose.JSONWebKey) { k.Key = smallRSA().Public() }),
		jwk(func(k *jose.JSONWebKey) { k.Key = ec384().Public() }),
		`{"kty":"quantum"}`, `{}`, `7`,
	}
	load := func(list ...string) (*auth.Keys, *logged, error) {
		log := new(logged)
		keys := must(auth.NewKeys(auth.KeysOptions{
			Location: writeFile(t, "jwks.json", []byte(`{"keys":[`+strings.Join(list, ",")+`]}`)), Logger: log.logger(),
		}))
		err := keys.Load(t.Context())
		return keys, log, err
	}
	for _, one := range odd {
		if _, log, err := load(one); err == nil || strings.Contains(log.String()+err.Error(), secret) {
			t.Errorf("Load() of %.60s = %v", one, err)
		}
	}
	keys, log, err := load(append(odd, string(must(json.Marshal(jose.JSONWebKey{
		Key: rsaKey().Public(), KeyID: "rsa", Algorithm: "PS256",
	}))))...)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), secret) || !strings.Contains(log.String(), "skipped") {
		t.Errorf("log: %s", log)
	}
	v := verifierOf(t, keys, nil)
	if got := cause(t.Context(), v, sign(rsaKey(), "PS256", head("PS256", "rsa"), goodClaims(time.Now()))); got != "" {
		t.Errorf("usable key: cause = %q", got)
	}
	// A key with an alg member is used for that algorithm only.
	if got := cause(t.Context(), v, sign(rsaKey(), "RS256", head("RS256", "rsa"), goodClaims(time.Now()))); got != auth.CauseUnknownKey {
		t.Errorf("RS256 with a key for PS256: cause = %q", got)
	}
}

func TestMalformedKeySet(t *testing.T) {
	for _, body := range []string{``, `null`, `[]`, `{}`, `{"keys":null}`, `{"keys":{}}`, `{"keys":[]} x`} {
		keys := must(auth.NewKeys(auth.KeysOptions{
			Location: writeFile(t, "jwks.json", []byte(body)), Logger: new(logged).logger(),
		}))
		if keys.Load(t.Context()) == nil {
			t.Errorf("Load() of %s = nil, want error", body)
		}
	}
}
