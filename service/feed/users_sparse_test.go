package feed_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
)

// scanningStore counts the users passed to Match in lists, and the lists with a condition.
type scanningStore struct {
	user.Store
	scanned, conditions int
}

func (s *scanningStore) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	if query.Where != nil {
		s.conditions++
	}
	match := query.Match
	query.Match = func(u *user.User, keys user.Keys) bool {
		s.scanned++
		return match(u, keys)
	}
	return s.Store.List(ctx, query)
}

// A cursor with a selective filter reads the index of the filter, and misses no change made in between.
func TestSparseFilterUsesItsCondition(t *testing.T) {
	const users = 5000
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "feed.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	counted := &scanningStore{Store: store}
	f, err := feed.Open(t.Context(), counted)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, store: store, feed: f}
	ids := b.createMany(users)
	var batch user.Batch
	tag := func(id int64, tag string) {
		op, err := user.NewUpdate(id, user.NewPatch(user.User{Tags: []string{tag}}), "")
		if err != nil {
			t.Fatal(err)
		}
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	apply := func() {
		if _, err := user.Apply(t.Context(), store, batch); err != nil {
			t.Fatal(err)
		}
		batch.Changes = nil
	}
	for i := 0; i < users; i += 100 {
		tag(ids[i], "rare")
	}
	for i := 1; i < users; i += 2 {
		tag(ids[i], "common") // after the users with the other tag
	}
	apply()
	where := user.Condition{Term: user.FindField("tags").ElementTerm("rare")}
	c := f.UserCursor(feed.UserCursorOptions{
		Where: &where, Match: func(u *user.User, _ user.Keys) bool { return slices.Contains(u.Tags, "rare") },
	})
	defer c.Close()
	got, last := map[int64]bool{}, int64(0)
	for reads, atHead := 0, false; !atHead; reads++ {
		page, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range page.Changes {
			if change.Position <= last {
				t.Errorf("change at position %d after position %d", change.Position, last)
			}
			last = change.Position
			if change.User == nil {
				delete(got, change.UserID)
			} else {
				got[change.UserID] = true
			}
		}
		atHead = page.AtHead
		if reads == 3 {
			tag(ids[0], "common")
			tag(ids[4900], "common")
			tag(ids[7], "rare")
			apply()
		}
	}
	want := map[int64]bool{ids[7]: true}
	for i := 100; i < 4900; i += 100 {
		want[ids[i]] = true
	}
	for id := range want {
		if !got[id] {
			t.Errorf("user %d is missing", id)
		}
	}
	if len(got) != len(want) || counted.conditions == 0 || counted.scanned > users {
		t.Errorf("%d users, %d lists with the condition, %d users scanned, want %d users, some lists, at most %d scanned",
			len(got), counted.conditions, counted.scanned, len(want), users)
	}
	t.Logf("scanned %d of %d users", counted.scanned, users)
}
