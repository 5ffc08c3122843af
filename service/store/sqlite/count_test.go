package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// Above MaxScanned users a count is an estimate.
func TestCountEstimates(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	const users, inSample = 12_000, 12_000 / tokens.SampleRate
	ids := make([]int64, 0, users)
	for len(ids) < users {
		var batch user.Batch
		for range 1000 {
			batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", len(ids)+len(batch.Changes)))})
		}
		for _, r := range mustWait(t, s.Submit(t.Context(), batch)) {
			ids = append(ids, r.User.ID)
		}
	}
	half := func(u *user.User, _ user.Keys) bool { return u.ID/tokens.SampleRate%2 == 0 }
	emea := &user.Condition{Term: user.FieldByName("tags").ElementTerm("emea")}
	for _, test := range []struct {
		name    string
		query   user.ListQuery
		want    float64
		scanned int
	}{
		{"all", user.ListQuery{}, users, 5000},
		{"a sample larger than the limit", user.ListQuery{}, users, inSample / 2},
		{"by name", user.ListQuery{Order: user.ByUsername, Prefix: "user"}, users, 5000},
		{"a term", user.ListQuery{Where: emea, Match: emea.Meets}, users, 5000},
		{"half of the users", user.ListQuery{Where: emea, Match: half}, users / 2, 5000},
	} {
		test.query.MaxScanned = test.scanned
		got, err := s.Count(t.Context(), test.query)
		// Four standard deviations of the number of users in the sample.
		if tolerance := 4 * test.want / math.Sqrt(inSample); err != nil || !got.Estimated || math.Abs(float64(got.Users)-test.want) > tolerance {
			t.Errorf("%s: Count() = %+v, %v, want an estimate of %.0f ± %.0f", test.name, got, err, test.want, tolerance)
		}
	}
	if got, err := s.Count(t.Context(), user.ListQuery{MaxScanned: users + 1}); err != nil || got != (user.Count{Users: users}) {
		t.Errorf("Count() = %+v, %v, want exactly %d", got, err, users)
	}
}

// A canceled count does not use results of its reader, which may still run. The race detector finds it.
func TestCanceledCount(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	var batch user.Batch
	for i := range 300 {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", i))})
	}
	mustWait(t, s.Submit(t.Context(), batch))
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		got, err := s.Count(ctx, user.ListQuery{MaxScanned: 1000, Match: func(*user.User, user.Keys) bool {
			cancel()
			return true
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Count() = %+v, %v, want that it was canceled", got, err)
		}
	}
}
