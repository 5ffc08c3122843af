package sqlite

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/store/tokens"
)

// The text of a token is its number in base 36.
func TestAppendToken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.OneOf(rapid.Uint64(), rapid.Uint64Max(1<<24), rapid.SampledFrom([]uint64{0, 1<<64 - 1})).Draw(r, "token")
		if got, want := string(appendToken([]byte("x "), tokens.Token(n))), "x "+strconv.FormatUint(n, 36); got != want {
			r.Errorf("appendToken(%d) = %q, want %q", n, got, want)
		}
	})
}
