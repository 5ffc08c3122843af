package feed

import (
	"math"
	"sync"

	"github.com/yourorg/userservice/service/user"
)

const (
	// MaxFollows is how many users one stream may name.
	MaxFollows = 10_000
	// maxPending is how many changed users a stream that follows everybody keeps in
	// memory; beyond that it goes back to reading the log.
	maxPending = 10_000
	// takeRows and takeBytes bound what one Take reads and returns.
	takeRows  = 1000
	takeBytes = 256 << 10
)

// NeverAgain is a position after every other: Release takes it for a user that does not
// exist, because nothing can follow.
const NeverAgain = math.MaxInt64

// Followed is the subscription of one stream to statuses: the users it follows and the
// newest status of each user that has changed and is not delivered yet. The goroutines of
// the stream share it.
//
// A user's status never goes back on a stream: a change that Take returns has a greater
// position than every earlier change of the user, and than every response for the user
// that Release was told of. Take returns a change at its own position or not at all:
// where a newer status exists, that one follows at its position.
type Followed struct {
	feed   *Feed
	origin uint64
	wake   chan struct{}

	mu sync.Mutex
	// named has the position that was delivered last for each user that the stream
	// named. A stream that follows everybody keeps it only for users whose position is
	// ahead of deliveredThrough.
	named map[int64]int64
	held  map[int64]hold // users with an outstanding response
	all   bool
	start int64 // where following everybody began
	// pending has the changes to deliver. Take delivers those of users that are not
	// held in the order of positions.
	pending map[int64]StatusChange
	// behind is the position after which the log must be read, because changes
	// were not kept in memory; -1: all that is to be delivered is pending.
	behind int64
}

// hold is the state of a user between Hold and Release.
type hold struct {
	outstanding int
	// through is the head at the first Hold. A change after it may be delivered by the
	// outstanding response, so deliveredThrough stays at it.
	through int64
	// removed: Remove came while a response was outstanding, and no response since then
	// had a status.
	removed bool
}

// Follow returns an empty set, which must be closed. Changes of the origin are
// not told.
func (f *Feed) Follow(origin uint64) *Followed {
	return &Followed{
		feed: f, origin: origin, wake: make(chan struct{}, 1), behind: -1,
		named: make(map[int64]int64), pending: make(map[int64]StatusChange),
	}
}

// Close ends the set.
func (s *Followed) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for id := range s.named {
		leave(s.feed.followers, id, s)
	}
	delete(s.feed.everybody, s)
}

// Held is what Hold found.
type Held struct {
	Fresh       bool // the user was not followed by name before
	Outstanding int  // responses that the user already waited for
}

// Hold follows a user from now on, but keeps its changes back until Release, so
// that the outstanding response comes before them. NewTooManyError: the set has MaxFollows
// users.
func (s *Followed) Hold(id int64) (Held, error) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.named[id]
	if !known {
		switch {
		case s.all:
			s.forgetDelivered()
		case len(s.named) >= s.feed.limits.follows:
			return Held{}, user.NewTooManyError(user.TooManyFollows, "followed users on one stream", s.feed.limits.follows)
		default:
			enter(s.feed.followers, id, s)
		}
		s.named[id] = 0
	}
	h, held := s.held[id]
	if !held {
		h.through = s.feed.Head().Position
		if s.held == nil {
			s.held = make(map[int64]hold)
		}
	}
	found := Held{Fresh: !known, Outstanding: h.outstanding}
	h.outstanding++
	s.held[id] = h
	return found, nil
}

// forgetDelivered bounds the named users of a stream that follows everybody. Positions
// that are not ahead of all others are not needed. If too many are, they are forgotten
// too: the stream is catching up, and may be sent a status of its own a second time.
func (s *Followed) forgetDelivered() {
	if len(s.named) < s.feed.limits.follows {
		return
	}
	through := s.deliveredThrough()
	forget := func(needed func(position int64) bool) {
		for id, position := range s.named {
			_, held := s.held[id]
			_, pending := s.pending[id]
			if !held && !pending && !needed(position) {
				delete(s.named, id)
			}
		}
	}
	forget(func(position int64) bool { return position > through })
	if len(s.named) >= s.feed.limits.follows {
		forget(func(int64) bool { return false })
	}
}

// Release ends a Hold: the response at hand has the user's status as of the position,
// and no change up to there is delivered after it. The position is 0 if the response has
// no status, and NeverAgain if the user does not exist.
func (s *Followed) Release(id, position int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[id]
	h.outstanding--
	h.removed = h.removed && position == 0
	if h.outstanding > 0 {
		s.held[id] = h
	} else {
		delete(s.held, id)
		if len(s.held) == 0 {
			s.held = nil // a map keeps the memory of its largest size
		}
	}
	s.delivered(id, position)
	if h.removed && h.outstanding <= 0 {
		s.remove(id)
	}
	if _, ok := s.pending[id]; ok {
		s.signal()
	}
}

// delivered records that the stream has the user's status as of the position.
func (s *Followed) delivered(id, position int64) {
	if last, named := s.named[id]; named {
		s.named[id] = max(last, position)
	}
	if change, ok := s.pending[id]; ok && change.Position <= position {
		delete(s.pending, id)
	}
}

// Remove ends the following of a user, unless everybody is followed. While a response is
// outstanding it waits for that: one that has a status follows the user again.
func (s *Followed) Remove(id int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, held := s.held[id]; held {
		h.removed = true
		s.held[id] = h
		return
	}
	s.remove(id)
}

func (s *Followed) remove(id int64) {
	if s.all {
		return
	}
	delete(s.named, id)
	delete(s.pending, id)
	leave(s.feed.followers, id, s)
}

// Everybody follows all users, beginning with what has changed since the position. A
// stream that follows everybody already goes back to an earlier position, and is sent
// again what has changed since then.
func (s *Followed) Everybody(after int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all && after >= s.start {
		return
	}
	s.start = after
	if !s.all {
		s.all = true
		for id := range s.named {
			leave(s.feed.followers, id, s)
		}
		s.feed.everybody[s] = struct{}{}
	}
	s.readLogAfter(after)
}

// readLogAfter lets Take read the log after the position. The log has every change that
// is pending behind the position.
func (s *Followed) readLogAfter(position int64) {
	s.behind = position
	for id, change := range s.pending {
		if change.Position > position {
			delete(s.pending, id)
		}
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
		return // the response has it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind >= 0 {
		return // the log has it
	}
	last, named := s.named[change.UserID]
	if change.Position <= last {
		return // a response had it: the store shows a commit before the feed hears of it
	}
	if _, pending := s.pending[change.UserID]; !pending && !named && len(s.pending) >= s.feed.limits.pending {
		s.readLogAfter(min(s.oldestUnnamed(), change.Position) - 1)
		return
	}
	s.pending[change.UserID] = change
	if _, held := s.held[change.UserID]; !held {
		s.signal()
	}
}

// oldestUnnamed returns the position of the first pending change of a user that the
// stream did not name. Everything before it was delivered, but for changes of named users.
func (s *Followed) oldestUnnamed() int64 {
	oldest := int64(math.MaxInt64)
	for id, change := range s.pending {
		if _, named := s.named[id]; !named {
			oldest = min(oldest, change.Position)
		}
	}
	return oldest
}

// Told is the position up to which nothing is left to be told, of what Take has
// given out and Release has settled: whoever resumes after it misses no status. It
// is an earlier one than the feed's head while changes wait.
func (s *Followed) Told() int64 {
	s.feed.mu.Lock() // else a commit could have moved the head, and have yet to mark
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deliveredThrough()
}

// deliveredThrough implements Told; it needs both locks.
func (s *Followed) deliveredThrough() int64 {
	through := s.feed.Head().Position
	if s.behind >= 0 {
		through = min(through, s.behind)
	}
	for _, change := range s.pending {
		through = min(through, change.Position-1)
	}
	for _, h := range s.held {
		through = min(through, h.through)
	}
	return through
}

// Drained returns NewDrainingError, with the position up to which all was told.
func (s *Followed) Drained() error {
	return user.NewDrainingError(s.feed.Head().Epoch, s.Told())
}
