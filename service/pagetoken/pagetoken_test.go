package pagetoken_test

import (
	"encoding/json"
	"testing"

	"github.com/yourorg/userservice/service/pagetoken"
	"github.com/yourorg/userservice/service/user"
)

func TestDecode(t *testing.T) {
	token, err := pagetoken.Encode(42, "ListUsers", "a", "bc")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, token string
		query       []string
		want        int
	}{
		{"same query", token, []string{"ListUsers", "a", "bc"}, 42},
		{"other query", token, []string{"ListUsers", "a", "b"}, 0},
		{"other division of the query", token, []string{"ListUsers", "ab", "c"}, 0},
		{"truncated", token[:len(token)-1], []string{"ListUsers", "a", "bc"}, 0},
		{"other cursor", token[:len(token)-1] + "z", []string{"ListUsers", "a", "bc"}, 0},
		{"short", "AAAA", nil, 0},
		{"not base64", "?", nil, 0},
		{"line break", token + "\n", []string{"ListUsers", "a", "bc"}, 0},
		{"inner line break", token[:5] + "\r\n" + token[5:], []string{"ListUsers", "a", "bc"}, 0},
	} {
		var got int
		err := pagetoken.Decode(test.token, &got, test.query...)
		if got != test.want || (err != nil) != (test.want == 0) || err != nil && !user.HasReason(err, user.InvalidField) {
			t.Errorf("%s: Decode() = %d, %v, want %d, or INVALID_FIELD if 0", test.name, got, err, test.want)
		}
	}
}

// A forged token has the right checksum. Its cursor is decoded only if Encode would have written it.
func TestDecodeIsStrict(t *testing.T) {
	type cursor struct {
		Key string `json:"k,omitempty"`
		ID  int64  `json:"i"`
	}
	for text, valid := range map[string]bool{
		`{"i":1}`: true, `{"k":"a","i":1}`: true,
		`null`: false, `{}`: false, `{"I":1}`: false, `{"i":1,"i":2}`: false, `{"i":1,"later":2}`: false,
		`{"k":"","i":1}`: false, `{"k":"\ud800","i":1}`: false, `{"i":1e0}`: false,
	} {
		token, err := pagetoken.Encode(json.RawMessage(text), "ListUsers")
		if err != nil {
			t.Fatal(err)
		}
		var got cursor
		if err := pagetoken.Decode(token, &got, "ListUsers"); (err == nil) != valid {
			t.Errorf("Decode(token of %s) = %+v, %v, want success: %t", text, got, err, valid)
		}
	}
}
