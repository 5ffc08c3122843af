package feed_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// step changes a user.
type step func(w *windowTest, id int64)

func setStatus(status user.Status) step {
	return func(w *windowTest, id int64) { w.apply(&user.SetStatus{ID: id, Status: status}) }
}

func purge(w *windowTest, id int64) {
	w.apply(&user.Delete{ID: id})
	w.apply(&user.Purge{ID: id})
}

func createAndPurge(w *windowTest, _ int64) {
	op, err := user.NewCreate(user.User{Username: "bob", Email: "bob@example.org"})
	if err != nil {
		w.Fatal(err)
	}
	purge(w, w.apply(op).User.ID)
}

// A read returns the newest state of each user that changed since the previous one, from the window and from the store.
func TestUserCursorReturnsTheNewestState(t *testing.T) {
	active, inactive := setStatus(user.StatusActive), setStatus(user.StatusInactive)
	deleted := func(w *windowTest, id int64) { w.apply(&user.Delete{ID: id, Retention: time.Hour}) }
	undeleted := func(w *windowTest, id int64) { w.apply(&user.Undelete{ID: id}) }
	recorded := func(w *windowTest, id int64) { w.apply(&user.Record{ID: id, Action: "app.seen"}) }
	for name, c := range map[string]struct {
		steps       []step
		showDeleted bool
		want        string // position and status of the user, or removed
	}{
		"stops and starts to match":        {[]step{inactive, active}, false, "3 USER_STATUS_ACTIVE"},
		"starts and stops to match":        {[]step{inactive, active, inactive}, false, "4 removed"},
		"deleted and undeleted":            {[]step{deleted, undeleted}, false, "3 USER_STATUS_ACTIVE"},
		"deleted":                          {[]step{deleted}, false, "2 removed"},
		"deleted and shown":                {[]step{deleted}, true, "2 USER_STATUS_ACTIVE"},
		"deleted, shown and purged":        {[]step{purge}, true, "3 removed"},
		"changed, deleted and purged":      {[]step{inactive, purge}, false, "4 removed"},
		"recorded activity and a change":   {[]step{recorded, inactive}, false, "3 removed"},
		"another one created and purged":   {[]step{createAndPurge}, true, "4 removed"},
		"a change and recorded activities": {[]step{inactive, recorded, recorded}, false, "2 removed"},
	} {
		for _, memory := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, window %t", name, memory), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					got := changesBetweenReads(t, c.showDeleted, memory, c.steps)
					if want := []string{c.want}; !slices.Equal(got, want) {
						t.Errorf("changes = %v, want %v", got, want)
					}
				})
			})
		}
	}
}

// changesBetweenReads applies changes to an active user between two reads of a cursor that matches active users.
func changesBetweenReads(t *testing.T, showDeleted, memory bool, steps []step) (changes []string) {
	t.Helper()
	w := &windowTest{T: t, store: &countingStore{Model: storetest.NewModel(nil)}}
	var err error
	if w.feed, err = feed.Open(context.Background(), w.store); err != nil {
		t.Fatal(err)
	}
	w.feed.SetMemory(func(int64) (func(), bool) { return func() {}, memory })
	op, err := user.NewCreate(user.User{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	id := w.apply(op).User.ID
	c := w.feed.UserCursor(feed.UserCursorOptions{
		ShowDeleted: showDeleted, Match: func(u *user.User, _ user.Keys) bool { return u.Status == user.StatusActive },
	})
	defer c.Close()
	if page, err := c.Read(t.Context()); err != nil || len(page.Changes) != 1 || !page.AtHead {
		t.Fatalf("first Read() = %+v, %v, want the user", page, err)
	}
	for _, step := range steps {
		step(w, id)
	}
	synctest.Wait()
	page, err := c.Read(t.Context())
	if err != nil || !page.AtHead {
		t.Fatalf("second Read() = %+v, %v, want the head", page, err)
	}
	for _, change := range page.Changes {
		state := "removed"
		if change.User != nil {
			state = change.User.Status.String()
		}
		changes = append(changes, fmt.Sprint(change.Position, " ", state))
	}
	return changes
}

// A read has reached the head only with the last removal of purged users, of which a page has a limited number. A cursor without a
// start position returns none of them.
func TestRemovalsOfManyPurges(t *testing.T) {
	b := newBench(t)
	const purged = 300
	ids := b.createMany(purged)
	start := b.feed.Head().Position
	var batch user.Batch
	for _, id := range ids {
		for _, op := range []user.Op{&user.Delete{ID: id}, &user.StartPurge{ID: id, Now: true}, &user.Purge{ID: id}} {
			batch.Changes = append(batch.Changes, user.Change{Op: op})
		}
	}
	results, err := user.Apply(t.Context(), b.store, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i := range results {
		if results[i].Err != nil {
			t.Fatal(results[i].Err)
		}
	}
	b.create()
	for after, want := range map[int64]int{start: purged + 1, 0: 1} {
		cursor := b.feed.UserCursor(feed.UserCursorOptions{After: after})
		got := 0
		for atHead := false; !atHead; {
			page, err := cursor.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, atHead = got+len(page.Changes), page.AtHead
		}
		cursor.Close()
		if got != want {
			t.Errorf("changes after %d up to the head = %d, want %d", after, got, want)
		}
	}
}
