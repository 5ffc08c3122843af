package auth

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	// MaxTokenBytes is the maximum length of a token.
	MaxTokenBytes = 8 << 10

	maxKeyIDBytes = 256
)

// tokenHeader is the used part of a JOSE header (RFC 7515, section 4).
type tokenHeader struct {
	algorithm jose.SignatureAlgorithm
	keyID     string // empty: none
}

// parseHeader parses and validates the header of a token in compact form. The header is not
// authenticated yet; it only selects the key to verify with.
func parseHeader(token string) (tokenHeader, error) {
	var none tokenHeader
	if len(token) > MaxTokenBytes {
		return none, newRefusedError(CauseOversize, nil)
	}
	decoded, ok := decodeToken(token)
	if !ok || !isStrictText(decoded) {
		return none, newRefusedError(CauseMalformed, nil)
	}
	// This decoder rejects duplicate members and is case-sensitive.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(decoded, &members); err != nil || members == nil {
		return none, newRefusedError(CauseMalformed, nil)
	}
	if err := checkMembers(members); err != nil {
		return none, err
	}
	var h tokenHeader
	if raw, ok := members["alg"]; !ok || json.Unmarshal(raw, &h.algorithm) != nil || !slices.Contains(supportedAlgorithms, h.algorithm) {
		return none, newRefusedError(CauseAlgorithm, nil)
	}
	if raw, ok := members["kid"]; ok {
		err := json.Unmarshal(raw, &h.keyID)
		if err != nil || h.keyID == "" || len(h.keyID) > maxKeyIDBytes {
			return none, newRefusedError(CauseKeyID, nil)
		}
	}
	return h, nil
}

// decodeToken returns the header of a token in compact form. It rejects segments that are
// not in canonical base64url: the signature decoder accepts other encodings, so one token
// could have several spellings.
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

// checkMembers rejects unsupported header members.
func checkMembers(members map[string]json.RawMessage) error {
	for _, name := range []string{"jwk", "jku", "x5c", "x5u"} {
		if _, ok := members[name]; ok {
			return newRefusedError(CauseEmbeddedKey, nil)
		}
	}
	// No extension is supported, so none can be critical. b64 and zip change the signed
	// content (RFC 7797, section 7, forbids b64 in a JWT).
	for _, name := range []string{"crit", "b64", "zip"} {
		if _, ok := members[name]; ok {
			return newRefusedError(CauseCritical, nil)
		}
	}
	raw, ok := members["typ"]
	if !ok {
		return nil
	}
	// Other signed tokens, such as logout tokens, may have the same keys and issuer
	// (RFC 8725, section 3.11).
	var kind string
	if json.Unmarshal(raw, &kind) != nil {
		return newRefusedError(CauseType, nil)
	}
	switch strings.TrimPrefix(strings.ToLower(kind), "application/") {
	case "jwt", "at+jwt":
		return nil
	}
	return newRefusedError(CauseType, nil)
}

func verifySignature(token string, algorithm jose.SignatureAlgorithm, keys []verifyKey) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{algorithm})
	if err != nil {
		return nil, newRefusedError(CauseMalformed, nil)
	}
	for _, k := range keys {
		if payload, err := signed.Verify(k.key); err == nil {
			return payload, nil
		}
	}
	return nil, newRefusedError(CauseSignature, nil)
}
