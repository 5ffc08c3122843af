package auth

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	// MaxTokenBytes bounds a token. A longer one is not looked at.
	MaxTokenBytes = 8 << 10

	maxKeyIDBytes = 256
)

// tokenHeader is what of a JOSE header (RFC 7515, section 4) counts here.
type tokenHeader struct {
	algorithm jose.SignatureAlgorithm
	keyID     string // empty: none
}

// parseHeader reads the header of a token in compact form, and refuses the token where
// the header asks for something that must not be. Nothing is believed yet: the header
// says which key to try, not that it fits.
func parseHeader(token string) (tokenHeader, error) {
	var none tokenHeader
	if len(token) > MaxTokenBytes {
		return none, refuse(CauseOversize, nil)
	}
	decoded, ok := decodeToken(token)
	if !ok || !isStrictText(decoded) {
		return none, refuse(CauseMalformed, nil)
	}
	// This decoder refuses a name that comes twice, and knows no case but one.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(decoded, &members); err != nil || members == nil {
		return none, refuse(CauseMalformed, nil)
	}
	if err := checkMembers(members); err != nil {
		return none, err
	}
	var h tokenHeader
	if raw, ok := members["alg"]; !ok || json.Unmarshal(raw, &h.algorithm) != nil || !slices.Contains(taken, h.algorithm) {
		return none, refuse(CauseAlgorithm, nil)
	}
	if raw, ok := members["kid"]; ok {
		err := json.Unmarshal(raw, &h.keyID)
		if err != nil || h.keyID == "" || len(h.keyID) > maxKeyIDBytes {
			return none, refuse(CauseKeyID, nil)
		}
	}
	return h, nil
}

// decodeToken returns the header of a token in compact form. It refuses a token of which
// a segment is not in the one canonical encoding: the decoder of the signature takes
// others too, so that one token could be spelled in several ways.
func decodeToken(token string) (header []byte, ok bool) {
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		return nil, false
	}
	for i, segment := range segments {
		decoded, err := base64.RawURLEncoding.DecodeString(segment)
		if err != nil || base64.RawURLEncoding.EncodeToString(decoded) != segment {
			return nil, false
		}
		if i == 0 {
			header = decoded
		}
	}
	return header, true
}

// checkMembers refuses what must not be in a header, whatever its value is.
func checkMembers(members map[string]json.RawMessage) error {
	for _, name := range []string{"jwk", "jku", "x5c", "x5u"} {
		if _, ok := members[name]; ok {
			return refuse(CauseEmbeddedKey, nil)
		}
	}
	// No extension is known, so none can be critical. b64 and zip would change
	// what the signature is over (RFC 7797, section 7: not in a JWT).
	for _, name := range []string{"crit", "b64", "zip"} {
		if _, ok := members[name]; ok {
			return refuse(CauseCritical, nil)
		}
	}
	raw, ok := members["typ"]
	if !ok {
		return nil
	}
	// Other kinds of signed tokens, such as those for a logout, share keys and issuer
	// with this one (RFC 8725, section 3.11).
	var kind string
	if json.Unmarshal(raw, &kind) != nil {
		return refuse(CauseType, nil)
	}
	switch strings.TrimPrefix(strings.ToLower(kind), "application/") {
	case "jwt", "at+jwt":
		return nil
	}
	return refuse(CauseType, nil)
}

// verifySignature returns the payload of a token that one of the keys has signed.
func verifySignature(token string, algorithm jose.SignatureAlgorithm, keys []verifyKey) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{algorithm})
	if err != nil {
		return nil, refuse(CauseMalformed, nil)
	}
	for _, k := range keys {
		if payload, err := signed.Verify(k.key); err == nil {
			return payload, nil
		}
	}
	return nil, refuse(CauseSignature, nil)
}
