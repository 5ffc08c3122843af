package service

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/yourorg/userservice/service/user"
)

// A page token is the place where the next page goes on, behind a sum over it and
// over the query that it belongs to. The sum keeps a caller from going on with
// another query by mistake; it is no secret and guards nothing, since a place tells
// no more than the query could.
const pageSumBytes = 12

// encodePageToken returns the token for a place in the answer to a query. query
// names the RPC and every argument that must stay the same from page to page.
func encodePageToken(place any, query ...string) (string, error) {
	encoded, err := json.Marshal(place)
	if err != nil {
		return "", fmt.Errorf("encode page token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(pageSum(encoded, query), encoded...)), nil
}

// decodePageToken reads the place from a token that encodePageToken made for the
// same query; any other token is an INVALID_FIELD error on page_token.
func decodePageToken(token string, place any, query ...string) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < pageSumBytes {
		return newPageTokenError()
	}
	sum, encoded := raw[:pageSumBytes], raw[pageSumBytes:]
	if subtle.ConstantTimeCompare(sum, pageSum(encoded, query)) == 0 {
		return newPageTokenError()
	}
	if err := json.Unmarshal(encoded, place); err != nil {
		return newPageTokenError()
	}
	return nil
}

func newPageTokenError() *user.Error {
	return user.NewFieldErrorf("page_token",
		"must be the next_page_token of the page before, with all arguments but page_size unchanged")
}

// pageSum is over the place and each part of the query with its length, so that
// parts cannot run into one another.
func pageSum(encoded []byte, query []string) []byte {
	h := sha256.New()
	var length [8]byte
	for _, part := range query {
		binary.LittleEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	h.Write(encoded)
	return h.Sum(nil)[:pageSumBytes]
}
