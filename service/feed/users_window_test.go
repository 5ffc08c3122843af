package feed_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// countingStore counts the lists. It fails them while fail is set.
type countingStore struct {
	*storetest.Model
	lists atomic.Int64
	fail  atomic.Bool
}

func (s *countingStore) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	s.lists.Add(1)
	if s.fail.Load() {
		return user.ListPage{}, user.NewStoreUnavailableError()
	}
	return s.Model.List(ctx, query)
}

// windowTest is a feed with some cursors at the head, each of which waits.
type windowTest struct {
	*testing.T
	store *countingStore
	feed  *feed.Feed
	id    int64
	ctx   context.Context //nolint:containedctx // of the cursors
	ended chan error
	woken atomic.Int64 // number of returns of Wait
	read  atomic.Int64 // number of changes
}

func newWindowTest(t *testing.T, cursors int) *windowTest {
	t.Helper()
	w := &windowTest{T: t, store: &countingStore{Model: storetest.NewModel(nil)}, ended: make(chan error, 16)}
	var err error
	if w.feed, err = feed.Open(t.Context(), w.store); err != nil {
		t.Fatal(err)
	}
	op, err := user.NewCreate(user.User{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	w.id = w.apply(op).User.ID
	ctx, cancel := context.WithCancel(t.Context())
	w.ctx = ctx
	t.Cleanup(func() {
		cancel()
		synctest.Wait()
	})
	for range cursors {
		go func() { w.ended <- w.follow() }()
	}
	synctest.Wait()
	w.store.lists.Store(0)
	w.read.Store(0)
	return w
}

func (w *windowTest) apply(op user.Op) user.Result {
	w.Helper()
	result, err := user.ApplyOne(w.Context(), w.store, user.Change{Op: op})
	if err != nil {
		w.Fatal(err)
	}
	return result
}

func (w *windowTest) follow() error {
	c := w.feed.UserCursor(feed.UserCursorOptions{})
	defer c.Close()
	for {
		page, err := c.Read(w.ctx)
		if err != nil {
			return err
		}
		w.read.Add(int64(len(page.Changes)))
		if !page.AtHead {
			continue
		}
		if err := c.Wait(w.ctx, nil); err != nil {
			return err
		}
		w.woken.Add(1)
	}
}

func (w *windowTest) want(step string, lists, woken, read int64) {
	w.Helper()
	synctest.Wait()
	if l, k, r := w.store.lists.Load(), w.woken.Load(), w.read.Load(); l != lists || k != woken || r != read {
		w.Errorf("%s: %d lists, %d wake-ups, %d changes read, want %d, %d, %d", step, l, k, r, lists, woken, read)
	}
}

// One change is read once for all cursors at the head.
func TestWindowIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 10)
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusInactive})
		w.want("a change", 1, 10, 10)
		w.apply(&user.Delete{ID: w.id, Retention: time.Hour})
		w.want("a deletion", 2, 20, 20)
	})
}

// Rows that change no user wake no cursor, unless it reads the store.
func TestRecordedActivitiesWakeNoUserCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 2)
		for range 5 {
			w.apply(&user.Record{ID: w.id, Action: "app.seen"})
		}
		w.want("activities", 0, 0, 0)
		w.feed.Drain()
		for range 2 { // at a position from which the client can resume
			if err := <-w.ended; !user.HasReason(err, user.ServerDraining) || positionOf(err) != 6 {
				t.Errorf("cursor ended with %v at position %d, want SERVER_DRAINING at 6", err, positionOf(err))
			}
		}
	})
}

// positionOf returns the position in an error.
func positionOf(err error) (position int64) {
	if failure, ok := user.AsError(err); ok {
		position, _ = strconv.ParseInt(failure.Metadata["position"], 10, 64)
	}
	return position
}

// A change after activities is read from the window.
func TestChangeAfterRecordedActivities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 2)
		w.apply(&user.Record{ID: w.id, Action: "app.seen"})
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusInactive})
		w.want("a change", 1, 2, 2)
	})
}

// Without memory for the window each cursor reads each change from the store.
func TestUserCursorsWithoutWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 0)
		w.feed.SetMemory(func(int64) (func(), bool) { return nil, false })
		for range 2 {
			go func() { w.ended <- w.follow() }()
		}
		w.want("two cursors", 2, 0, 2)
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusInactive})
		w.want("a change", 4, 2, 4)
		w.apply(&user.Record{ID: w.id, Action: "app.seen"})
		w.want("an activity", 6, 4, 4)
	})
}

// After a failed read of the window each cursor reads the store and fails. The next cursor opens a window.
func TestFailedReadClosesTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 3)
		w.store.fail.Store(true)
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusInactive})
		w.want("a failed read", 4, 3, 0)
		for range 3 {
			if err := <-w.ended; !user.HasReason(err, user.StoreUnavailable) {
				t.Errorf("cursor ended with %v, want STORE_UNAVAILABLE", err)
			}
		}
		w.store.fail.Store(false)
		go func() { w.ended <- w.follow() }()
		w.want("a new cursor", 5, 3, 1)
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusActive})
		w.want("a change", 6, 4, 2)
	})
}

// The memory of the window is reserved while it has readers.
func TestWindowMemoryIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 0)
		var reserved atomic.Int64
		w.feed.SetMemory(func(bytes int64) (func(), bool) {
			reserved.Add(bytes)
			return func() { reserved.Add(-bytes) }, true
		})
		ctx, cancel := context.WithCancel(t.Context())
		w.ctx = ctx
		for range 2 {
			go func() { w.ended <- w.follow() }()
		}
		synctest.Wait()
		if got := reserved.Load(); got < 1<<20 || got > 3<<20 {
			t.Errorf("%d bytes are reserved for two cursors, want those of one window", got)
		}
		cancel()
		synctest.Wait()
		if got := reserved.Load(); got != 0 {
			t.Errorf("%d bytes are reserved without cursors, want 0", got)
		}
	})
}

// A value is derived once for all cursors, and kept while the window has the change.
func TestSharedValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindowTest(t, 1)
		w.feed.SetWindow(4 << 10)
		c := w.feed.UserCursor(feed.UserCursorOptions{After: w.feed.Head().Position})
		defer c.Close()
		next := func() *feed.Shared {
			synctest.Wait()
			page, err := c.Read(t.Context())
			if err != nil || len(page.Changes) != 1 {
				t.Fatalf("Read() = %v, %v, want one change", page, err)
			}
			return page.Changes[0].Shared
		}
		if page, err := c.Read(t.Context()); err != nil || !page.AtHead {
			t.Fatalf("Read() = %v, %v, want the head", page, err)
		}
		derived := 0
		want := func(step string, s *feed.Shared, key string, bytes, want int) {
			t.Helper()
			value, err := s.Value(key, func() (any, int, error) { derived++; return key, bytes, nil })
			if err != nil || value != key || derived != want {
				t.Errorf("%s: Value() = %v, %v, derived %d times, want %s, %d times", step, value, err, derived, key, want)
			}
		}
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusInactive})
		first := next()
		if _, err := first.Value("a", func() (any, int, error) { return nil, 0, context.Canceled }); !errors.Is(err, context.Canceled) {
			t.Errorf("Value() = %v, want the error of the function", err)
		}
		want("after an error", first, "a", 100, 1)
		want("again", first, "a", 100, 1)
		want("another key", first, "b", 100, 2)
		w.apply(&user.SetStatus{ID: w.id, Status: user.StatusActive})
		second := next()
		want("another change", second, "a", 100, 3)
		want("a change that the window no longer has", first, "c", 100, 4)
		want("a change that the window no longer has, again", first, "c", 100, 5)
		want("more than the window", second, "c", 4<<10, 6)
		want("after the eviction", second, "d", 100, 7)
		want("after the eviction, again", second, "d", 100, 8)
	})
}
