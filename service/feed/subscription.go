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
	// pollRows and pollBytes bound what one Poll reads and returns.
	pollRows  = 1000
	pollBytes = 256 << 10
)

// MaxPosition is a position after every other: Resume takes it for a user that does not
// exist, because nothing can follow.
const MaxPosition = math.MaxInt64

// Subscription is the subscription of one stream to statuses: the users it follows and the
// newest status of each user that has changed and is not delivered yet. The goroutines of
// the stream share it.
//
// A user's status never goes back on a stream: a change that Poll returns has a greater
// position than every earlier change of the user, and than every response for the user
// that Resume was told of. Poll returns a change at its own position or not at all:
// where a newer status exists, that one follows at its position.
type Subscription struct {
	feed   *Feed
	origin uint64
	wake   chan struct{}

	mu sync.Mutex
	// named has the position that was delivered last for each user that the stream
	// named. A stream that follows everybody keeps it only for users whose position is
	// ahead of deliveredThrough.
	named  map[int64]int64
	paused map[int64]pause // users with an outstanding response
	all    bool
	start  int64 // where following everybody began
	// pending has the changes to deliver. Poll delivers those of users that are not
	// paused in the order of positions.
	pending map[int64]StatusChange
	// behind is the position after which the log must be read, because changes
	// were not kept in memory; -1: all that is to be delivered is pending.
	behind int64
}

// pause is the state of a user between Pause and Resume.
type pause struct {
	outstanding int
	// through is the head at the first Pause. A change after it may be delivered by the
	// outstanding response, so deliveredThrough stays at it.
	through int64
	// removed: Unsubscribe came while a response was outstanding, and no response since then
	// had a status.
	removed bool
}

// Subscribe returns an empty set, which must be closed. Changes of the origin are
// not told.
func (f *Feed) Subscribe(origin uint64) *Subscription {
	return &Subscription{
		feed: f, origin: origin, wake: make(chan struct{}, 1), behind: -1,
		named: make(map[int64]int64), pending: make(map[int64]StatusChange),
	}
}

// Close ends the set.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for id := range s.named {
		leave(s.feed.followers, id, s)
	}
	delete(s.feed.everybody, s)
}

// PauseState is what Pause found.
type PauseState struct {
	Fresh       bool // the user was not followed by name before
	Outstanding int  // responses that the user already waited for
}

// Pause follows a user from now on, but keeps its changes back until Resume, so
// that the outstanding response comes before them. NewTooManyError: the set has MaxFollows
// users.
func (s *Subscription) Pause(id int64) (PauseState, error) {
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
			return PauseState{}, user.NewTooManyError(user.TooManyFollows, "followed users on one stream", s.feed.limits.follows)
		default:
			enter(s.feed.followers, id, s)
		}
		s.named[id] = 0
	}
	h, paused := s.paused[id]
	if !paused {
		h.through = s.feed.Head().Position
		if s.paused == nil {
			s.paused = make(map[int64]pause)
		}
	}
	found := PauseState{Fresh: !known, Outstanding: h.outstanding}
	h.outstanding++
	s.paused[id] = h
	return found, nil
}

// forgetDelivered bounds the named users of a stream that follows everybody. Positions
// that are not ahead of all others are not needed. If too many are, they are forgotten
// too: the stream is catching up, and may be sent a status of its own a second time.
func (s *Subscription) forgetDelivered() {
	if len(s.named) < s.feed.limits.follows {
		return
	}
	through := s.deliveredThrough()
	forget := func(needed func(position int64) bool) {
		for id, position := range s.named {
			_, paused := s.paused[id]
			_, pending := s.pending[id]
			if !paused && !pending && !needed(position) {
				delete(s.named, id)
			}
		}
	}
	forget(func(position int64) bool { return position > through })
	if len(s.named) >= s.feed.limits.follows {
		forget(func(int64) bool { return false })
	}
}

// Resume ends a Pause: the response at hand has the user's status as of the position,
// and no change up to there is delivered after it. The position is 0 if the response has
// no status, and MaxPosition if the user does not exist.
func (s *Subscription) Resume(id, position int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.paused[id]
	h.outstanding--
	h.removed = h.removed && position == 0
	if h.outstanding > 0 {
		s.paused[id] = h
	} else {
		delete(s.paused, id)
		if len(s.paused) == 0 {
			s.paused = nil // a map keeps the memory of its largest size
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
func (s *Subscription) delivered(id, position int64) {
	if last, named := s.named[id]; named {
		s.named[id] = max(last, position)
	}
	if change, ok := s.pending[id]; ok && change.Position <= position {
		delete(s.pending, id)
	}
}

// Unsubscribe ends the following of a user, unless everybody is followed. While a response is
// outstanding it waits for that: one that has a status follows the user again.
func (s *Subscription) Unsubscribe(id int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, paused := s.paused[id]; paused {
		h.removed = true
		s.paused[id] = h
		return
	}
	s.remove(id)
}

func (s *Subscription) remove(id int64) {
	if s.all {
		return
	}
	delete(s.named, id)
	delete(s.pending, id)
	leave(s.feed.followers, id, s)
}

// SubscribeAll follows all users, beginning with what has changed since the position. A
// stream that follows everybody already goes back to an earlier position, and is sent
// again what has changed since then.
func (s *Subscription) SubscribeAll(after int64) {
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

// readLogAfter lets Poll read the log after the position. The log has every change that
// is pending behind the position.
func (s *Subscription) readLogAfter(position int64) {
	s.behind = position
	for id, change := range s.pending {
		if change.Position > position {
			delete(s.pending, id)
		}
	}
	s.signal()
}

// Wake gets a value when Poll may have something to give.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// mark notes a change; it is called in commit order.
func (s *Subscription) mark(change StatusChange, origin uint64) {
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
	if _, paused := s.paused[change.UserID]; !paused {
		s.signal()
	}
}

// oldestUnnamed returns the position of the first pending change of a user that the
// stream did not name. Everything before it was delivered, but for changes of named users.
func (s *Subscription) oldestUnnamed() int64 {
	oldest := int64(math.MaxInt64)
	for id, change := range s.pending {
		if _, named := s.named[id]; !named {
			oldest = min(oldest, change.Position)
		}
	}
	return oldest
}

// DeliveredThrough is the position up to which nothing is left to be told, of what Poll has
// given out and Resume has settled: whoever resumes after it misses no status. It
// is an earlier one than the feed's head while changes wait.
func (s *Subscription) DeliveredThrough() int64 {
	s.feed.mu.Lock() // else a commit could have moved the head, and have yet to mark
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deliveredThrough()
}

// deliveredThrough implements DeliveredThrough; it needs both locks.
func (s *Subscription) deliveredThrough() int64 {
	through := s.feed.Head().Position
	if s.behind >= 0 {
		through = min(through, s.behind)
	}
	for _, change := range s.pending {
		through = min(through, change.Position-1)
	}
	for _, h := range s.paused {
		through = min(through, h.through)
	}
	return through
}

// Drained returns NewDrainingError, with the position up to which all was told.
func (s *Subscription) Drained() error {
	return user.NewDrainingError(s.feed.Head().Epoch, s.DeliveredThrough())
}
