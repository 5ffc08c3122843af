package pagetoken_test

import (
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
	} {
		var got int
		err := pagetoken.Decode(test.token, &got, test.query...)
		if got != test.want || (err != nil) != (test.want == 0) || err != nil && !user.HasReason(err, user.InvalidField) {
			t.Errorf("%s: Decode() = %d, %v, want %d, or INVALID_FIELD if 0", test.name, got, err, test.want)
		}
	}
}
