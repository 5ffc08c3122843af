package tokens

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// The tokens that are computed before a transaction are those of the user that it creates.
func TestOfCreate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		op := &user.Create{
			ID: rapid.OneOf(rapid.Just(int64(3*SampleRate)), rapid.Int64Min(1)).Draw(r, "id"),
			Values: user.User{
				Tags:     rapid.SliceOf(rapid.String()).Draw(r, "tags"),
				Metadata: rapid.MapOf(rapid.String(), rapid.String()).Draw(r, "metadata"),
			},
			Keys: user.Keys{Username: rapid.String().Draw(r, "username key"), Email: rapid.String().Draw(r, "email key")},
		}
		created, err := op.Decide(nil, user.CommitStamp{}, user.Author{})
		if err != nil {
			t.Fatal(err)
		}
		before := OfCreate(op)
		kept := slices.Clone(before)
		if got, want := WithSample(before, op.ID), OfUser(created.User, op.Keys); !slices.Equal(got, want) {
			r.Errorf("WithSample(OfCreate(op), %d) = %v, want %v", op.ID, got, want)
		}
		if !slices.Equal(before, kept) {
			r.Errorf("WithSample changed its argument to %v, want %v", before, kept)
		}
	})
}
