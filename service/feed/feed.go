// Package feed follows the log.
//
// A stream is a cursor over the log in the store: what wakes it is in memory, what
// it reads is the log. So a slow reader costs no memory and loses nothing; it
// reads older rows from the store at its own pace. The seam between what stood in
// the log and what comes live is a comparison of positions: a cursor asks for
// its wake-ups first and reads then, so that a row is either read or wakes it.
//
// Statuses are state, not events: a [Subscription] keeps the newest status of each user
// that has changed and not yet been taken, never a growing queue.
//
// The package leaves alone who may follow what, and how rows travel.
package feed

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/yourorg/userservice/service/user"
)

// Feed tells streams of what is committed. It is safe for use by many goroutines.
type Feed struct {
	store  user.Store
	head   atomic.Pointer[user.Head]
	limits limits

	origins  atomic.Uint64
	draining chan struct{}
	drain    sync.Once

	mu        sync.Mutex
	moved     chan struct{} // closed at the next commit; nil: nobody waits for one
	cursors   map[int64]map[*Cursor]struct{}
	followers map[int64]map[*Subscription]struct{}
	everybody map[*Subscription]struct{}
}

// limits bound a subscription to statuses. Tests make them small.
type limits struct{ follows, pending, rows int }

// wholeLog is the key of cursors that follow everybody.
const wholeLog = 0

// Open returns the feed of the store's log. It becomes the store's observer, so it
// must come before the first write.
func Open(ctx context.Context, store user.Store) (*Feed, error) {
	f := &Feed{
		store:     store,
		limits:    limits{MaxFollows, maxPending, pollRows},
		draining:  make(chan struct{}),
		cursors:   make(map[int64]map[*Cursor]struct{}),
		followers: make(map[int64]map[*Subscription]struct{}),
		everybody: make(map[*Subscription]struct{}),
	}
	store.Observe(f.committed)
	head, err := store.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("open feed: %w", err)
	}
	f.head.Store(&head)
	return f, nil
}

// Head is the end of the log as far as streams have been told of it. Whoever reads
// the store after this call sees at least that much.
func (f *Feed) Head() user.Head { return *f.head.Load() }

// Lag is how many rows of the log the cursor that is furthest behind has yet to read,
// whether they are for it or not. One that waits has all there is for it. What a cursor
// has read and its stream still sends, a page at most, does not count.
func (f *Feed) Lag() int64 {
	head, most := f.Head().Position, int64(0)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, cursors := range f.cursors {
		for c := range cursors {
			if at := c.at.Load(); at != waits {
				most = max(most, head-at)
			}
		}
	}
	return most
}

// Drain tells every stream, once and for all, that the server is about to stop.
func (f *Feed) Drain() { f.drain.Do(func() { close(f.draining) }) }

// Draining is closed once the server is about to stop.
func (f *Feed) Draining() <-chan struct{} { return f.draining }

// IsDraining reports whether the server is about to stop.
func (f *Feed) IsDraining() bool {
	select {
	case <-f.draining:
		return true
	default:
		return false
	}
}

// NewOrigin returns a number that tells the changes of one stream from others'.
func (f *Feed) NewOrigin() uint64 { return f.origins.Add(1) }

// WaitFor returns once the log has reached the position, with NewDrainingError once the
// server is about to stop, or with the context's error.
func (f *Feed) WaitFor(ctx context.Context, position int64) error {
	for {
		f.mu.Lock()
		if f.Head().Position >= position {
			f.mu.Unlock()
			return nil
		}
		if f.moved == nil {
			f.moved = make(chan struct{})
		}
		moved := f.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-f.draining:
			return user.NewDrainingError(f.Head().Epoch, f.Head().Position)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// CheckPosition returns NewPositionOutOfRangeError if a stream cannot go on after the position: it is
// ahead of the log, or rows behind it are no longer kept, or it belongs to another
// epoch. An empty epoch is not checked.
func (f *Feed) CheckPosition(ctx context.Context, epoch string, position int64) error {
	head := f.Head()
	if epoch == "" && position == 0 {
		return nil
	}
	first, err := f.store.First(ctx)
	if err != nil {
		return err
	}
	switch {
	case epoch != "" && epoch != head.Epoch:
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "the position belongs to another epoch of the log")
	case position > head.Position:
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "the position is ahead of the log")
	case position+1 < first:
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "rows behind the position are no longer kept")
	}
	return nil
}

// committed is the store's observer: it runs in commit order, on the goroutine that
// commits, and so does nothing but mark and wake.
func (f *Feed) committed(c user.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head.Store(&c.Head)
	if f.moved != nil {
		close(f.moved)
		f.moved = nil
	}
	rows := false
	for i := range c.Changes {
		change := &c.Changes[i]
		if len(change.Rows) == 0 {
			continue
		}
		rows = true
		for cursor := range f.cursors[change.UserID] {
			cursor.signal()
		}
		f.deliver(change)
	}
	if rows {
		for cursor := range f.cursors[wholeLog] {
			cursor.signal()
		}
	}
}

func (f *Feed) deliver(change *user.CommittedChange) {
	followers := f.followers[change.UserID]
	if len(followers) == 0 && len(f.everybody) == 0 {
		return
	}
	status, ok := statusOf(change)
	if !ok {
		return
	}
	for s := range followers {
		s.mark(status, change.Origin)
	}
	for s := range f.everybody {
		s.mark(status, change.Origin)
	}
}

// enter adds a member to the set under a key, leave takes it out; sets that become
// empty are dropped.
func enter[T comparable](sets map[int64]map[T]struct{}, key int64, member T) {
	set := sets[key]
	if set == nil {
		set = make(map[T]struct{}, 1)
		sets[key] = set
	}
	set[member] = struct{}{}
}

func leave[T comparable](sets map[int64]map[T]struct{}, key int64, member T) {
	set := sets[key]
	delete(set, member)
	if len(set) == 0 {
		delete(sets, key)
	}
}
