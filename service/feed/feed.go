// Package feed streams the log and status changes.
//
// A [Cursor] reads the log from the store; only its wake-ups are in memory. A slow reader
// therefore takes no memory and misses nothing. A cursor registers for wake-ups before it
// reads, so each row is either read or wakes it: there is no gap between replay and live rows.
//
// A [Subscription] conflates statuses: it keeps the newest undelivered status of each changed
// user, never a growing queue.
//
// Authorization and encoding are up to the caller.
package feed

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/user"
)

// Feed notifies streams of commits. It is safe for concurrent use.
type Feed struct {
	store  user.Store
	head   atomic.Pointer[user.Head]
	limits limits

	origins  atomic.Uint64
	draining chan struct{}
	drain    sync.Once

	mu          sync.Mutex
	advanced    chan struct{}     // closed at the next commit; nil: no waiter
	cursors     map[int64]*Cursor // the first cursor of each user
	subscribers map[int64]map[*Subscription]struct{}
	wildcards   map[*Subscription]struct{}
	outputs     map[any]*output // by connection
	receivers   []*Subscription // of a change
	ready       []*output       // that have ready subscriptions
	delivering  bool            // deliverReady runs

	window window
}

// limits bound a subscription. Tests reduce them.
type limits struct{ follows, pending, rows int }

// Keys of cursors that are not over the rows of one user.
const (
	allUsers     = 0  // rows of all users
	changedUsers = -1 // user cursors
)

// Open returns the feed of a store and registers it as the observer of the store. It must be
// called before the first write.
func Open(ctx context.Context, store user.Store) (*Feed, error) {
	f := &Feed{
		store:       store,
		limits:      limits{MaxFollows, maxPending, pollRows},
		draining:    make(chan struct{}),
		cursors:     make(map[int64]*Cursor),
		subscribers: make(map[int64]map[*Subscription]struct{}),
		wildcards:   make(map[*Subscription]struct{}),
		outputs:     make(map[any]*output),
	}
	f.window = window{feed: f, maximum: windowBytes}
	store.Observe(f.committed)
	head, err := store.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("open feed: %w", err)
	}
	f.head.CompareAndSwap(nil, &head) // a commit of another node may have been observed
	return f, nil
}

// Head returns the end of the log of which streams were notified. A later read of the store
// reflects it.
func (f *Feed) Head() user.Head { return *f.head.Load() }

// Lag returns the distance in rows from the head to the slowest cursor. Idle cursors, and rows
// that were read but not sent yet, do not count.
func (f *Feed) Lag() int64 {
	head, most := f.Head().Position, int64(0)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.cursors {
		for ; c != nil; c = c.next {
			if at := c.readTo.Load(); at != idle {
				most = max(most, head-at)
			}
		}
	}
	return most
}

// Drain notifies all streams of shutdown. It is idempotent.
func (f *Feed) Drain() {
	f.drain.Do(func() {
		close(f.draining)
		f.mu.Lock()
		defer f.mu.Unlock()
		for key := range f.cursors {
			f.signalAll(key)
		}
	})
}

// Draining returns a channel that is closed by Drain.
func (f *Feed) Draining() <-chan struct{} { return f.draining }

// IsDraining reports whether Drain was called.
func (f *Feed) IsDraining() bool {
	select {
	case <-f.draining:
		return true
	default:
		return false
	}
}

// NewOrigin returns a unique user.Author.Origin for a stream.
func (f *Feed) NewOrigin() uint64 { return f.origins.Add(1) }

// WaitFor blocks until the log has reached the position. It returns a SERVER_DRAINING error at
// shutdown, or the cause of ctx.
func (f *Feed) WaitFor(ctx context.Context, position int64) error {
	if f.Head().Position >= position {
		return nil
	}
	slot := fair.FromContext(ctx)
	defer slot.Resume(slot.Release())
	for {
		f.mu.Lock()
		if f.Head().Position >= position {
			f.mu.Unlock()
			return nil
		}
		if f.advanced == nil {
			f.advanced = make(chan struct{})
		}
		advanced := f.advanced
		f.mu.Unlock()
		select {
		case <-advanced:
		case <-f.draining:
			return user.NewDrainingError(f.Head().Epoch, f.Head().Position)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// CheckPosition returns a POSITION_OUT_OF_RANGE error unless a stream can resume after the
// position. An empty epoch is not checked; without an epoch, position 0 is no position.
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
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "position belongs to another epoch of the log")
	case position > head.Position:
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "position is ahead of the log")
	case position+1 < first:
		return user.NewRowsPrunedError(head.Epoch, first, head.Position)
	}
	return nil
}

// committed observes commits. It runs on the writer goroutine, so it only records and signals.
func (f *Feed) committed(c user.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head.Store(&c.Head)
	if f.advanced != nil {
		close(f.advanced)
		f.advanced = nil
	}
	rows, usersChanged := false, false
	for i := range c.Changes {
		change := &c.Changes[i]
		if len(change.Rows) == 0 {
			continue
		}
		rows = true
		usersChanged = usersChanged || change.User == nil || change.User.LastActivityID >= change.Rows[0].Position
		for cursor := f.cursors[change.UserID]; cursor != nil; cursor = cursor.next {
			cursor.signalRow(change.Rows[0].Position)
		}
		f.deliver(change)
	}
	closed := f.window.committed(c.Head.Position, usersChanged)
	if rows {
		f.signalAll(allUsers)
	}
	if rows && closed {
		f.signalAll(changedUsers)
	}
	if len(f.ready) > 0 && !f.delivering {
		f.delivering = true
		go f.deliverReady()
	}
}

// signalAll signals the cursors with a key. It requires the lock.
func (f *Feed) signalAll(key int64) {
	for cursor := f.cursors[key]; cursor != nil; cursor = cursor.next {
		cursor.signal()
	}
}

func (f *Feed) deliver(change *user.CommittedChange) {
	subscribers := f.subscribers[change.UserID]
	if len(subscribers) == 0 && len(f.wildcards) == 0 {
		return
	}
	status, ok := statusOf(change)
	if !ok {
		return
	}
	for s := range subscribers {
		f.addReceiver(s, change.Origin)
	}
	for s := range f.wildcards {
		f.addReceiver(s, change.Origin)
	}
	for _, s := range f.receivers {
		s.push(&status)
	}
	clear(f.receivers)
	f.receivers = f.receivers[:0]
}

// addReceiver adds a subscription to those of a change, unless a response delivers the change. It reads the memory that push needs,
// see prefetched.
func (f *Feed) addReceiver(s *Subscription, origin uint64) {
	if s.origin != origin || origin == 0 {
		f.receivers = append(f.receivers, s)
	}
}

// add adds a member to the set of a key. remove deletes it, and the set when it is empty.
func add[T comparable](sets map[int64]map[T]struct{}, key int64, member T) {
	set := sets[key]
	if set == nil {
		set = make(map[T]struct{}, 1)
		sets[key] = set
	}
	set[member] = struct{}{}
}

func remove[T comparable](sets map[int64]map[T]struct{}, key int64, member T) {
	set := sets[key]
	delete(set, member)
	if len(set) == 0 {
		delete(sets, key)
	}
}
