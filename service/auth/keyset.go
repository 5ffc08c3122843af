package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	// minRSABits is the minimum of RFC 7518, section 3.3. maxRSABits bounds the cost of
	// one verification.
	minRSABits = 2048
	maxRSABits = 8192

	// maxMatches is the maximum number of keys tried for one key id.
	maxMatches = 4
)

// supportedAlgorithms are the accepted signature algorithms, all asymmetric (RFC 7518, RFC 8037).
var supportedAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// verifyKey is a public key and the algorithms that it may be used with.
type verifyKey struct {
	id         string
	key        any // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithms []jose.SignatureAlgorithm
}

// keySet is the usable part of a JWK set (RFC 7517, section 5). It is immutable.
type keySet struct{ keys []verifyKey }

// parseKeySet parses a JWK set. It skips unusable keys, as the RFC requires, and returns one
// error for each. A set with only unusable keys is an error; an empty set is not, because it
// revokes all keys.
func parseKeySet(body []byte) (set *keySet, skipped []error, err error) {
	var raw struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, nil, fmt.Errorf("not a JWK set: %w", err)
	}
	if raw.Keys == nil {
		return nil, nil, errors.New("not a JWK set: the member keys is missing")
	}
	set = new(keySet)
	for i, one := range *raw.Keys {
		key, err := parseKey(one)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		set.keys = append(set.keys, key)
	}
	if len(set.keys) == 0 && len(skipped) > 0 {
		return nil, skipped, fmt.Errorf("no usable key: %w", errors.Join(skipped...))
	}
	return set, skipped, nil
}

func parseKey(body []byte) (verifyKey, error) {
	var about struct {
		Type    string   `json:"kty"`
		Use     string   `json:"use"`
		Ops     []string `json:"key_ops"`
		Private any      `json:"d"`
	}
	if err := json.Unmarshal(body, &about); err != nil {
		return verifyKey{}, errors.New("not a JWK") // the decoder's error could quote key material
	}
	switch {
	case about.Type == "oct":
		return verifyKey{}, errors.New("symmetric keys are not allowed in a published set")
	case about.Private != nil:
		return verifyKey{}, errors.New("private keys are not allowed in a published set")
	case about.Use != "" && about.Use != "sig",
		about.Ops != nil && !slices.Contains(about.Ops, "verify"):
		return verifyKey{}, errors.New("not a signature key")
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(body, &jwk); err != nil {
		return verifyKey{}, errors.New("malformed key or unknown key type")
	}
	algorithms, err := algorithmsOf(jwk.Key)
	if err != nil {
		return verifyKey{}, err
	}
	if own := jose.SignatureAlgorithm(jwk.Algorithm); own != "" {
		if !slices.Contains(algorithms, own) {
			return verifyKey{}, errors.New("alg is not supported for this key type")
		}
		algorithms = []jose.SignatureAlgorithm{own}
	}
	return verifyKey{id: jwk.KeyID, key: jwk.Key, algorithms: algorithms}, nil
}

// algorithmsOf returns the algorithms that a key may be used with. They depend on the key
// type alone, so a public key cannot be misused as an HMAC secret (RFC 8725, section 3.1).
func algorithmsOf(key any) ([]jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("RSA key: must have %d to %d bits", minRSABits, maxRSABits)
		}
		return []jose.SignatureAlgorithm{jose.RS256, jose.PS256}, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, errors.New("EC key: curve must be P-256")
		}
		return []jose.SignatureAlgorithm{jose.ES256}, nil
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}, nil
	default:
		return nil, errors.New("key type is not supported")
	}
}

// find returns the keys with the id that support the algorithm, and whether any key has the
// id. An empty id matches every key.
func (s *keySet) find(id string, algorithm jose.SignatureAlgorithm) (matches []verifyKey, named bool) {
	for _, k := range s.keys {
		if id != "" && k.id != id {
			continue
		}
		named = true
		if len(matches) < maxMatches && slices.Contains(k.algorithms, algorithm) {
			matches = append(matches, k)
		}
	}
	return matches, named
}
