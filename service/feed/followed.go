package feed

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/yourorg/userservice/service/user"
)

const (
	// MaxFollows is how many users one stream may name.
	MaxFollows = 10_000
	// maxPending is how many changed users a stream that follows everybody keeps in
	// memory; beyond that it goes back to reading the log.
	maxPending = 10_000
	// takeRows bounds what one Take returns.
	takeRows = 1000
)

// Followed is what one stream follows, and what it has yet to be told: the newest
// status of each user that has changed. The stream's own goroutines share it.
type Followed struct {
	feed   *Feed
	origin uint64
	wake   chan struct{}

	mu      sync.Mutex
	users   map[int64]int // named users, with the number of outstanding answers
	all     bool
	pending map[int64]StatusChange
	// behind is the position after which the log must be read, because changes
	// were not kept in memory; -1: all that is to be told is pending.
	behind int64
}

// Follow returns an empty set, which must be closed. Changes of the origin are
// not told.
func (f *Feed) Follow(origin uint64) *Followed {
	return &Followed{
		feed: f, origin: origin, wake: make(chan struct{}, 1), behind: -1,
		users: make(map[int64]int), pending: make(map[int64]StatusChange),
	}
}

// Close ends the set.
func (s *Followed) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for id := range s.users {
		leave(s.feed.followers, id, s)
	}
	delete(s.feed.everybody, s)
}

// Held is what Hold found.
type Held struct {
	Fresh       bool // the user was not followed before
	Outstanding int  // answers that the user already waited for
}

// Hold follows a user from now on, but keeps its changes back until Release, so
// that the outstanding answer comes before them. ErrTooMany: the set has MaxFollows
// users.
func (s *Followed) Hold(id int64) (Held, error) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	outstanding, known := s.users[id]
	if !known {
		if len(s.users) >= MaxFollows {
			return Held{}, user.ErrTooMany(user.TooManyFollows, "followed users on one stream", MaxFollows)
		}
		if !s.all {
			enter(s.feed.followers, id, s)
		}
	}
	s.users[id]++
	return Held{Fresh: !known, Outstanding: outstanding}, nil
}

// Release ends a Hold: the answer at hand tells of the user's status as of the
// position, so changes up to there need not be told.
func (s *Followed) Release(id, position int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[id] > 0 {
		s.users[id]--
	}
	if change, ok := s.pending[id]; ok {
		if change.Position <= position {
			delete(s.pending, id)
		} else {
			s.signal()
		}
	}
}

// Remove follows a user no more, unless everybody is followed or an answer is
// outstanding.
func (s *Followed) Remove(id int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[id] > 0 {
		return
	}
	delete(s.users, id)
	leave(s.feed.followers, id, s)
	if !s.all {
		delete(s.pending, id)
	}
}

// Everybody follows all users, beginning with what has changed since the position.
func (s *Followed) Everybody(after int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = true
	for id := range s.users {
		leave(s.feed.followers, id, s)
	}
	s.feed.everybody[s] = struct{}{}
	if s.behind < 0 || after < s.behind {
		s.behind = after
	}
	s.signal()
}

// Wake gets a value when Take may have something to give.
func (s *Followed) Wake() <-chan struct{} { return s.wake }

func (s *Followed) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// mark notes a change; it is called in commit order.
func (s *Followed) mark(change StatusChange, origin uint64) {
	if origin != 0 && origin == s.origin {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind >= 0 {
		return // the log will tell
	}
	if _, known := s.pending[change.UserID]; !known && s.all && len(s.pending) >= maxPending {
		s.behind = s.oldestPending() - 1
		clear(s.pending)
		s.signal()
		return
	}
	s.pending[change.UserID] = change
	if s.users[change.UserID] == 0 {
		s.signal()
	}
}

func (s *Followed) oldestPending() int64 {
	oldest := int64(-1)
	for _, change := range s.pending {
		if oldest < 0 || change.Position < oldest {
			oldest = change.Position
		}
	}
	return oldest
}

// Take returns what there is to tell, in the order of positions, at most some
// hundred changes; if there is more, Wake gets another value.
func (s *Followed) Take(ctx context.Context) ([]StatusChange, error) {
	s.mu.Lock()
	if s.behind >= 0 {
		after := s.behind
		s.mu.Unlock()
		return s.catchUp(ctx, after)
	}
	defer s.mu.Unlock()
	ready := make([]StatusChange, 0, min(len(s.pending), takeRows))
	for id, change := range s.pending {
		if s.users[id] == 0 {
			ready = append(ready, change)
		}
	}
	slices.SortFunc(ready, func(a, b StatusChange) int { return cmp.Compare(a.Position, b.Position) })
	if len(ready) > takeRows {
		ready = ready[:takeRows]
		s.signal()
	}
	for i := range ready {
		delete(s.pending, ready[i].UserID)
	}
	return ready, nil
}

// catchUp reads one page of the log instead of memory. The log does not say which
// stream made a change, so a stream that fell that far behind is told its own too.
func (s *Followed) catchUp(ctx context.Context, after int64) ([]StatusChange, error) {
	page, err := s.feed.store.Log(ctx, user.LogQuery{After: after, Actions: statusActions, MaxRows: takeRows})
	if err != nil {
		return nil, err
	}
	changes, err := s.feed.newest(ctx, page.Rows)
	if err != nil {
		return nil, err
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = page.Reached
	if page.Done && s.feed.Head().Position == page.Reached {
		// Nothing was committed meanwhile, and what comes will be marked. A commit that
		// the store shows before it tells of it would be marked although it is told.
		s.behind = -1
	}
	s.signal()
	return slices.DeleteFunc(changes, s.keptBack), nil
}

// Told is the position up to which nothing is left to be told, of what Take has
// given out and Release has settled: whoever resumes after it misses no status. It
// is an earlier one than the feed's head while changes wait.
func (s *Followed) Told() int64 {
	s.feed.mu.Lock() // else a commit could have moved the head, and have yet to mark
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.feed.Head().Position
	if s.behind >= 0 {
		told = s.behind
	}
	if oldest := s.oldestPending(); oldest >= 0 {
		told = min(told, oldest-1)
	}
	return told
}

// Drained returns ErrDraining, with the position up to which all was told.
func (s *Followed) Drained() error {
	return user.ErrDraining(s.feed.Head().Epoch, s.Told())
}

// keptBack keeps the change of a user with an outstanding answer until Release.
func (s *Followed) keptBack(change StatusChange) bool {
	if s.users[change.UserID] == 0 {
		return false
	}
	s.pending[change.UserID] = change
	return true
}
