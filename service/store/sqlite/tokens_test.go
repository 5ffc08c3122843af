package sqlite

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// The tokens that are computed before a transaction are those of the user that it creates.
func TestCreateTokens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		drawn := drawUser(r)
		op := &user.Create{
			ID:     rapid.OneOf(rapid.Just(int64(3*sampleRate)), rapid.Int64Min(1)).Draw(r, "id"),
			Values: user.User{Username: drawn.Username, Email: drawn.Email, Tags: drawn.Tags, Metadata: drawn.Metadata},
			Keys:   user.Keys{Username: rapid.String().Draw(r, "username key"), Email: rapid.String().Draw(r, "email key")},
		}
		created, err := op.Decide(nil, user.CommitStamp{}, user.Author{})
		if err != nil {
			t.Fatal(err)
		}
		before := createTokens(op)
		kept := slices.Clone(before)
		if got, want := withSample(before, op.ID), userTokens(created.User, op.Keys); !slices.Equal(got, want) {
			r.Errorf("withSample(createTokens(op), %d) = %v, want %v", op.ID, got, want)
		}
		if !slices.Equal(before, kept) {
			r.Errorf("withSample changed its argument to %v, want %v", before, kept)
		}
	})
}
