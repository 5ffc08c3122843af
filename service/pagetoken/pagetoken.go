// Package pagetoken encodes and decodes page tokens. A token is a checksum followed by the cursor of
// the next page. The checksum covers the cursor and the query, and detects a token used with another
// query. It needs no secret: a forged cursor returns nothing that the query could not return. A caller of Decode has to
// check that the cursor is one of the query.
package pagetoken

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/yourorg/userservice/service/user"
)

const sumBytes = 12

// Encode returns the token for a cursor. query is the RPC and the arguments bound to
// the token.
func Encode(cursor any, query ...string) (string, error) {
	encoded, err := json.Marshal(cursor)
	if err != nil {
		return "", fmt.Errorf("encode page token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(checksum(encoded, query), encoded...)), nil
}

// Decode decodes the cursor of a token. A token of another query, or in another spelling than that of Encode, is an
// INVALID_FIELD error on page_token.
func Decode(token string, cursor any, query ...string) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	// The decoder ignores line breaks.
	if err != nil || len(raw) < sumBytes || base64.RawURLEncoding.EncodeToString(raw) != token {
		return NewError()
	}
	sum, encoded := raw[:sumBytes], raw[sumBytes:]
	if subtle.ConstantTimeCompare(sum, checksum(encoded, query)) == 0 {
		return NewError()
	}
	if err := json.Unmarshal(encoded, cursor); err != nil {
		return NewError()
	}
	// The decoder ignores unknown members, and the case of known ones.
	if again, err := json.Marshal(cursor); err != nil || !bytes.Equal(again, encoded) {
		return NewError()
	}
	return nil
}

// NewError returns the error for a token that is not of the query.
func NewError() *user.Error {
	return user.NewFieldErrorf("page_token",
		"must be the next_page_token of the previous page, with all arguments except page_size unchanged")
}

// checksum hashes the cursor and the length-prefixed parts of the query.
func checksum(encoded []byte, query []string) []byte {
	h := sha256.New()
	var length [8]byte
	for _, part := range query {
		binary.LittleEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	h.Write(encoded)
	return h.Sum(nil)[:sumBytes]
}
