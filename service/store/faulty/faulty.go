// Package faulty wraps a store with a planted fault, so that tests can show that the test suites
// detect it. Faults of durability are planted in the store itself.
package faulty

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// Faults that New plants.
const (
	PanicInHandler = "panic-in-handler" // calls for PanicUser panic
	DropAtSeam     = "drop-at-seam"     // some reads that reach the end of the log skip the next row
	PublishEarly   = "publish-early"    // the observer is called before a read returns the rows
	LeakReads      = "leak-reads"       // each point read leaks 1 MiB
	OneQueue       = "one-queue"        // point reads wait for scans

	LoseChange  = "lose-change"  // some lists of changed users lack the last user
	HideChange  = "hide-change"  // the observer is not told of the changes of some commits
	LosePurges  = "lose-purges"  // reads of the log for purged users return none
	StaleChange = "stale-change" // some lists of changed users return an older state

	CheckEarly = "check-early" // reads of the log check for pruned rows before they read

	StaleRead = "stale-read" // some point reads return the state of the point read before
)

const (
	// PanicUser is the user whose calls panic.
	PanicUser = 1
	// seamsPerDrop is the number of reads of the whole log up to its end per dropped row.
	seamsPerDrop = 8
	// publicationLead is the time from a publication until reads return the rows.
	publicationLead = 20 * time.Millisecond
)

// New returns the store with the fault, or the store itself if the fault is not one of this package.
func New(store user.Store, fault string) user.Store {
	switch fault {
	case PanicInHandler:
		return panicking{store}
	case DropAtSeam:
		return &dropping{Store: store}
	case PublishEarly:
		return &early{Store: store}
	case LeakReads:
		return &leaking{Store: store}
	case OneQueue:
		return &queued{Store: store}
	case LoseChange:
		return &losing{Store: store}
	case HideChange:
		return &hiding{Store: store}
	case LosePurges:
		return unpurged{store}
	case CheckEarly:
		return checkedEarly{store}
	case StaleRead:
		return &cached{Store: store, read: make(map[int64]*user.User)}
	case StaleChange:
		return &stale{Store: store, older: make(map[int64]*user.User)}
	}
	return store
}

type panicking struct{ user.Store }

func panicFor(id int64) {
	if id == PanicUser {
		panic("planted: call for this user")
	}
}

// Get implements user.Store.
func (s panicking) Get(ctx context.Context, id int64) (*user.User, error) {
	panicFor(id)
	return s.Store.Get(ctx, id)
}

// Statuses implements user.Store.
func (s panicking) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	for _, id := range ids {
		panicFor(id)
	}
	return s.Store.Statuses(ctx, ids)
}

// Submit implements user.Store.
func (s panicking) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	for i := range batch.Changes {
		panicFor(batch.Changes[i].Op.Target())
	}
	return s.Store.Submit(ctx, batch)
}

type dropping struct {
	user.Store

	seams atomic.Int64
}

// Log implements user.Store.
func (s *dropping) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	page, err := s.Store.Log(ctx, query)
	if page.Done && !query.Desc && query.UserID == 0 && s.seams.Add(1)%seamsPerDrop == 0 {
		page.Reached++
	}
	return page, err
}

type early struct {
	user.Store

	visible atomic.Int64 // position up to which reads return rows; 0: all
}

// Observe implements user.Store.
func (s *early) Observe(observer func(user.Commit)) {
	s.Store.Observe(func(c user.Commit) {
		observer(c)
		time.AfterFunc(publicationLead, func() { s.show(c.Head.Position) })
	})
}

func (s *early) show(position int64) {
	for {
		if old := s.visible.Load(); old >= position || s.visible.CompareAndSwap(old, position) {
			return
		}
	}
}

// Log implements user.Store.
func (s *early) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	visible := s.visible.Load()
	if visible == 0 {
		return s.Store.Log(ctx, query)
	}
	if query.Before == 0 || query.Before > visible {
		query.Before = visible + 1
	}
	page, err := s.Store.Log(ctx, query)
	if !query.Desc {
		page.Reached = min(page.Reached, max(query.After, visible))
	}
	return page, err
}

type leaking struct {
	user.Store

	mu     sync.Mutex
	leaked [][]byte
}

// Get implements user.Store.
func (s *leaking) Get(ctx context.Context, id int64) (*user.User, error) {
	s.mu.Lock()
	s.leaked = append(s.leaked, bytes.Repeat([]byte{1}, 1<<20))
	s.mu.Unlock()
	return s.Store.Get(ctx, id)
}

type queued struct {
	user.Store

	mu sync.Mutex
}

// Get implements user.Store.
func (s *queued) Get(ctx context.Context, id int64) (*user.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Get(ctx, id)
}

// List implements user.Store.
func (s *queued) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.List(ctx, query)
}

// Log implements user.Store.
func (s *queued) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Log(ctx, query)
}

type checkedEarly struct{ user.Store }

// Log implements user.Store.
func (s checkedEarly) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	first, err := s.First(ctx)
	if err != nil {
		return user.LogPage{}, err
	}
	page, err := s.Store.Log(ctx, query)
	if query.After+1 >= first && user.HasReason(err, user.PositionOutOfRange) {
		query.Retained = true
		return s.Store.Log(ctx, query)
	}
	return page, err
}
