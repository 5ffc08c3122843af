package feed_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a feed over its own store.
type bench struct {
	*testing.T
	store user.Store
	feed  *feed.Feed
	users int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "feed.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, store: store, feed: f}
}

func (b *bench) apply(op user.Op, by user.Author) user.Result {
	b.Helper()
	result, err := user.ApplyOne(b.Context(), b.store, user.Change{Op: op, By: by})
	if err != nil {
		b.Fatal(err)
	}
	return result
}

func (b *bench) create() int64 {
	b.Helper()
	return b.createMany(1)[0]
}

func (b *bench) createMany(n int) []int64 {
	b.Helper()
	var batch user.Batch
	for range n {
		b.users++
		op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %d", b.users), Email: fmt.Sprintf("u%d@example.org", b.users)})
		if err != nil {
			b.Fatal(err)
		}
		batch.Changes = append(batch.Changes, user.Change{Op: op})
	}
	results, err := user.Apply(b.Context(), b.store, batch)
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]int64, n)
	for i := range results {
		ids[i] = results[i].User.ID
	}
	return ids
}

func (b *bench) setStatus(id int64, status user.Status, origin uint64) int64 {
	b.Helper()
	return b.apply(&user.SetStatus{ID: id, Status: status}, user.Author{Origin: origin}).Position
}

func (b *bench) delete(id int64) { b.apply(&user.Delete{ID: id, Retention: time.Hour}, user.Author{}) }

// drainCursor reads up to the head.
func (b *bench) drainCursor(c *feed.Cursor) (actions []string, last feed.Page) {
	b.Helper()
	for {
		page, err := c.Read(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, row := range page.Rows {
			actions = append(actions, row.Action)
		}
		if page.AtHead {
			return actions, page
		}
	}
}

func TestCursorHasNoGapBetweenReplayAndLive(t *testing.T) {
	b := newBench(t)
	const rows = 1500
	id := b.create()
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for range rows / 3 {
				_, err := user.ApplyOne(context.Background(), b.store, user.Change{Op: &user.Record{ID: id, Action: "seam"}})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var readers sync.WaitGroup
	for _, follows := range []int64{0, id} {
		readers.Go(func() {
			c := b.feed.Cursor(feed.CursorOptions{UserID: follows})
			defer c.Close()
			for want := int64(1); want <= rows+1; {
				page, err := c.Read(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, row := range page.Rows {
					if row.Position != want {
						t.Errorf("Read() row = %d, want %d", row.Position, want)
						return
					}
					want++
				}
				if page.AtHead && want <= rows+1 {
					if err := c.Wait(t.Context(), nil); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	readers.Wait()
}

// Since and Actions each filter rows on their own.
func TestCursorFilters(t *testing.T) {
	b := newBench(t)
	id := b.create()
	b.setStatus(id, user.StatusInactive, 0)
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, test := range []struct {
		since   time.Time
		actions []string
		want    []string
	}{
		{past, nil, []string{user.ActionCreated, user.ActionStatusChanged}},
		{future, nil, nil},
		{time.Time{}, []string{user.ActionCreated}, []string{user.ActionCreated}},
		{past, []string{user.ActionCreated}, []string{user.ActionCreated}},
	} {
		c := b.feed.Cursor(feed.CursorOptions{Since: test.since, Actions: test.actions})
		if got, _ := b.drainCursor(c); !slices.Equal(got, test.want) {
			t.Errorf("rows since %v with actions %v = %v, want %v", test.since, test.actions, got, test.want)
		}
		c.Close()
	}
}

func TestCursorEndsWhenUserIsDeleted(t *testing.T) {
	b := newBench(t)
	id := b.create()
	b.delete(id)
	deletedAt := b.feed.Head().Position
	for _, c := range []struct {
		name  string
		opts  feed.CursorOptions
		ended bool
	}{
		{"from the first row", feed.CursorOptions{UserID: id, Deleted: true}, true},
		{"after the deletion", feed.CursorOptions{UserID: id, After: deletedAt, Deleted: true}, true},
		{"with an unused action", feed.CursorOptions{UserID: id, Actions: []string{"never"}, Deleted: true}, true},
		{"of all users", feed.CursorOptions{Deleted: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cursor := b.feed.Cursor(c.opts)
			defer cursor.Close()
			if _, last := b.drainCursor(cursor); last.Ended != c.ended {
				t.Errorf("Ended = %t, want %t", last.Ended, c.ended)
			}
		})
	}
	b.apply(&user.Undelete{ID: id}, user.Author{})
	cursor := b.feed.Cursor(feed.CursorOptions{UserID: id, Actions: []string{user.ActionCreated}})
	defer cursor.Close()
	actions, last := b.drainCursor(cursor)
	if last.Ended || !slices.Equal(actions, []string{user.ActionCreated}) {
		t.Errorf("after undeletion: Ended = %t, actions %v", last.Ended, actions)
	}
	b.delete(id)
	if err := cursor.Wait(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if actions, last := b.drainCursor(cursor); !last.Ended || len(actions) != 0 {
		t.Errorf("after the second deletion: Ended = %t, actions %v", last.Ended, actions)
	}
}

func TestDrainEndsWaits(t *testing.T) {
	b := newBench(t)
	b.create()
	cursor := b.feed.Cursor(feed.CursorOptions{})
	defer cursor.Close()
	b.drainCursor(cursor)
	b.feed.Drain()
	b.feed.Drain() // idempotent
	err := cursor.Wait(t.Context(), nil)
	if !user.HasReason(err, user.ServerDraining) {
		t.Fatalf("Wait() = %v, want SERVER_DRAINING", err)
	}
	late := b.feed.Cursor(feed.CursorOptions{})
	defer late.Close()
	b.drainCursor(late)
	if err := late.Wait(t.Context(), nil); !user.HasReason(err, user.ServerDraining) {
		t.Errorf("Wait() of a cursor opened later = %v, want SERVER_DRAINING", err)
	}
	if e, _ := user.AsError(err); e.Metadata["position"] != "1" || e.Metadata["epoch"] != b.feed.Head().Epoch {
		t.Errorf("metadata = %v, want the epoch and position 1", e.Metadata)
	}
}

func TestWaitForReturnsAtPosition(t *testing.T) {
	b := newBench(t)
	reached := make(chan error, 1)
	go func() { reached <- b.feed.WaitFor(t.Context(), 2) }()
	b.createMany(2)
	if err := <-reached; err != nil {
		t.Fatal(err)
	}
	last := int64(2)
	for range 20 {
		last++
		go func() { reached <- b.feed.WaitFor(t.Context(), last) }()
		b.create()
		if err := <-reached; err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	last++
	if err := b.feed.WaitFor(ctx, last); err == nil {
		t.Error("WaitFor() with a canceled context = nil, want an error")
	}
	b.feed.Drain()
	if err := b.feed.WaitFor(t.Context(), last); !user.HasReason(err, user.ServerDraining) {
		t.Errorf("WaitFor() while draining = %v, want SERVER_DRAINING", err)
	}
}

func TestCheckPosition(t *testing.T) {
	b := newBench(t)
	b.createMany(2)
	epoch := b.feed.Head().Epoch
	for _, c := range []struct {
		epoch    string
		position int64
		invalid  bool
	}{
		{"", 0, false}, {epoch, 0, false}, {"", 2, false}, {epoch, 2, false},
		{"", 3, true}, {"other", 0, true}, {"other", 1, true},
	} {
		err := b.feed.CheckPosition(t.Context(), c.epoch, c.position)
		if user.HasReason(err, user.PositionOutOfRange) != c.invalid || !c.invalid && err != nil {
			t.Errorf("CheckPosition(%q, %d) = %v", c.epoch, c.position, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.feed.CheckPosition(ctx, epoch, 2); err == nil {
		t.Error("CheckPosition() with a canceled context = nil, want an error")
	}
}
