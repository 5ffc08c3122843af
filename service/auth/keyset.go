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
	// minRSABits is the least that RFC 7518, section 3.3, allows; maxRSABits keeps
	// the cost of a check in bounds.
	minRSABits = 2048
	maxRSABits = 8192

	// maxFits is how many keys of one name are tried.
	maxFits = 4
)

// taken are the algorithms that are taken, all asymmetric (RFC 7518, RFC 8037).
var taken = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// verifyKey is a public key and the algorithms that it serves.
type verifyKey struct {
	id         string
	key        any // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithms []jose.SignatureAlgorithm
}

// keySet is the usable keys of a JWK set (RFC 7517, section 5). It does not change.
type keySet struct{ keys []verifyKey }

// parseKeySet reads a JWK set. Keys that cannot be used here are passed over, as the
// RFC wants it, and told in passed; a set of such keys alone is an error. An empty set is
// none: it says that no key is valid any more.
func parseKeySet(body []byte) (set *keySet, passed []error, err error) {
	var raw struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, nil, fmt.Errorf("not a JWK set: %w", err)
	}
	if raw.Keys == nil {
		return nil, nil, errors.New("not a JWK set: it has no keys")
	}
	set = new(keySet)
	for i, one := range *raw.Keys {
		key, err := parseKey(one)
		if err != nil {
			passed = append(passed, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		set.keys = append(set.keys, key)
	}
	if len(set.keys) == 0 && len(passed) > 0 {
		return nil, passed, fmt.Errorf("no key can be used: %w", errors.Join(passed...))
	}
	return set, passed, nil
}

func parseKey(body []byte) (verifyKey, error) {
	var about struct {
		Type    string   `json:"kty"`
		Use     string   `json:"use"`
		Ops     []string `json:"key_ops"`
		Private any      `json:"d"`
	}
	if err := json.Unmarshal(body, &about); err != nil {
		return verifyKey{}, errors.New("not a JWK") // its text may hold a key
	}
	switch {
	case about.Type == "oct":
		return verifyKey{}, errors.New("a symmetric key does not belong into a published set")
	case about.Private != nil:
		return verifyKey{}, errors.New("a private key does not belong into a published set")
	case about.Use != "" && about.Use != "sig",
		about.Ops != nil && !slices.Contains(about.Ops, "verify"):
		return verifyKey{}, errors.New("not for signatures")
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(body, &jwk); err != nil {
		return verifyKey{}, errors.New("a key of an unknown or broken kind")
	}
	algorithms, err := algorithmsOf(jwk.Key)
	if err != nil {
		return verifyKey{}, err
	}
	if own := jose.SignatureAlgorithm(jwk.Algorithm); own != "" {
		if !slices.Contains(algorithms, own) {
			return verifyKey{}, errors.New("its algorithm is not taken, or not of its kind")
		}
		algorithms = []jose.SignatureAlgorithm{own}
	}
	return verifyKey{id: jwk.KeyID, key: jwk.Key, algorithms: algorithms}, nil
}

// algorithmsOf gives the algorithms that a key can serve. That it is the key which
// decides is what keeps a public key from being used as a shared secret (RFC 8725,
// section 3.1).
func algorithmsOf(key any) ([]jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key must have %d to %d bits", minRSABits, maxRSABits)
		}
		return []jose.SignatureAlgorithm{jose.RS256, jose.PS256}, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, errors.New("an elliptic curve other than P-256 is not taken")
		}
		return []jose.SignatureAlgorithm{jose.ES256}, nil
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}, nil
	default:
		return nil, errors.New("a key of a kind that is not taken")
	}
}

// find returns the keys of that name for the algorithm, and whether there is any key of
// that name. Without a name it returns all keys for the algorithm.
func (s *keySet) find(id string, algorithm jose.SignatureAlgorithm) (fits []verifyKey, named bool) {
	for _, k := range s.keys {
		if id != "" && k.id != id {
			continue
		}
		named = true
		if len(fits) < maxFits && slices.Contains(k.algorithms, algorithm) {
			fits = append(fits, k)
		}
	}
	return fits, named
}
