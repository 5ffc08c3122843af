package feed

import (
	"context"
	"math"
	"sync"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/user"
)

const (
	// MaxFollows is the maximum number of users that one stream can subscribe to by id.
	MaxFollows = 10_000
	// maxPending is the maximum number of pending changes of a subscription to all users.
	// Beyond it the subscription reads the log.
	maxPending = 10_000
	// pollRows and pollBytes bound one Poll.
	pollRows  = 1000
	pollBytes = 256 << 10
)

// MaxPosition is greater than every position. Pass it to Resume for a user that does not
// exist.
const MaxPosition = math.MaxInt64

// Subscription is the status subscription of one stream: its users, and the newest
// undelivered status of each changed user. It is safe for concurrent use.
//
// A change returned by Poll has a greater position than all earlier changes of the user and
// all positions passed to Resume for it. Poll returns a change at its own position or not
// at all: if a newer status exists, that one follows at its position.
//
// The fields that a delivery needs are the first two cache lines.
type Subscription struct {
	direct Direct // nil: changes wake the stream

	mu     sync.Mutex // guards the fields that are set after Subscribe and DeliverBy
	queued bool       // in output.ready since the last poll
	all    bool
	// logAfter is the position after which the log must be read, because changes are missing
	// from pending; -1: pending is complete.
	logAfter int64
	// pending holds undelivered changes, including those of paused users. Subscriptions share them.
	pending userMap[*StatusChange]

	output *output // of direct
	origin uint64
	wake   chan struct{}
	// positions maps each user subscribed by id to the last position delivered for it. A
	// subscription to all users keeps only positions ahead of deliveredThrough.
	positions  userMap[int64]
	paused     userMap[pause] // users with an outstanding response
	startAfter int64          // start of the subscription to all users

	feed *Feed
	_    [16]byte // the size of the struct is a size class of the allocator, and whole cache lines
}

// pause is the state of a user between Pause and Resume.
type pause struct {
	outstanding int
	// through is the head at the first Pause. It bounds deliveredThrough, because only the
	// outstanding response may deliver a later change.
	through int64
	// removed is set by Unsubscribe while a response is outstanding, and cleared by a
	// response with a status.
	removed bool
}

// Subscribe returns an empty subscription that ignores changes of the origin. The caller must
// close it.
func (f *Feed) Subscribe(origin uint64) *Subscription {
	return &Subscription{feed: f, origin: origin, wake: make(chan struct{}, 1), logAfter: -1}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for id := range s.positions.all() {
		remove(s.feed.subscribers, id, s)
	}
	delete(s.feed.wildcards, s)
	s.removeOutput()
}

// PauseState is the state of a user before Pause.
type PauseState struct {
	Fresh       bool // the user was not subscribed by id before
	Outstanding int  // number of outstanding responses for the user
	Users       int  // number of users subscribed by id, with this one
}

// Pause subscribes to a user and defers its changes until Resume, so the outstanding
// response precedes them. Beyond MaxFollows users it returns a TOO_MANY_FOLLOWS error.
func (s *Subscription) Pause(id int64) (PauseState, error) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.positions.has(id)
	if !known {
		switch {
		case s.all:
			s.evictPositions()
		case s.positions.len() >= s.feed.limits.follows:
			return PauseState{}, user.NewTooManyError(user.TooManyFollows, "followed users on one stream", s.feed.limits.follows)
		default:
			add(s.feed.subscribers, id, s)
		}
		s.positions.set(id, 0)
	}
	h, paused := s.paused.get(id)
	if !paused {
		h.through = s.feed.Head().Position
	}
	found := PauseState{Fresh: !known, Outstanding: h.outstanding, Users: s.positions.len()}
	h.outstanding++
	s.paused.set(id, h)
	return found, nil
}

// PauseAll calls Pause for many users, in the slot of the request, which it keeps.
func (s *Subscription) PauseAll(ctx context.Context, ids []int64) error {
	fair.FromContext(ctx).Acquire()
	for _, id := range ids {
		if _, err := s.Pause(id); err != nil {
			return err
		}
	}
	return nil
}

// evictPositions bounds the positions of a subscription to all users. Positions up to
// deliveredThrough are not needed. If too many are ahead of it, they are evicted too: the
// stream is catching up and may receive a status of its own twice.
func (s *Subscription) evictPositions() {
	if s.positions.len() < s.feed.limits.follows {
		return
	}
	through := s.deliveredThrough()
	evict := func(needed func(position int64) bool) {
		for id, position := range s.positions.all() {
			if !s.paused.has(id) && !s.pending.has(id) && !needed(position) {
				s.positions.delete(id)
			}
		}
	}
	evict(func(position int64) bool { return position > through })
	if s.positions.len() >= s.feed.limits.follows {
		evict(func(int64) bool { return false })
	}
}

// Resume ends a Pause: the response delivered the status of the user as of the position, so no
// change up to it is delivered. The position is 0 if the response has no status, and
// MaxPosition if the user does not exist.
func (s *Subscription) Resume(id, position int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	h, _ := s.paused.get(id)
	h.outstanding--
	h.removed = h.removed && position == 0
	if h.outstanding > 0 {
		s.paused.set(id, h)
	} else {
		s.paused.delete(id)
	}
	s.markDelivered(id, position)
	if h.removed && h.outstanding <= 0 {
		s.unsubscribe(id)
	}
	if s.pending.has(id) {
		s.signal()
	}
}

// markDelivered records the delivery of the status of a user as of the position.
func (s *Subscription) markDelivered(id, position int64) {
	if last, byID := s.positions.get(id); byID {
		s.positions.set(id, max(last, position))
	}
	if change, ok := s.pending.get(id); ok && change.Position <= position {
		s.pending.delete(id)
	}
}

// Unsubscribe ends the subscription to a user, except in a subscription to all users. While
// responses are outstanding it is deferred, and a response with a status cancels it.
func (s *Subscription) Unsubscribe(id int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, paused := s.paused.get(id); paused {
		h.removed = true
		s.paused.set(id, h)
		return
	}
	s.unsubscribe(id)
}

func (s *Subscription) unsubscribe(id int64) {
	if s.all {
		return
	}
	s.positions.delete(id)
	s.pending.delete(id)
	remove(s.feed.subscribers, id, s)
}

// SubscribeAll subscribes to all users, starting with the changes after the position. If it
// was called before, an earlier position delivers the changes after it again.
func (s *Subscription) SubscribeAll(after int64) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all && after >= s.startAfter {
		return
	}
	s.startAfter = after
	if !s.all {
		s.all = true
		for id := range s.positions.all() {
			remove(s.feed.subscribers, id, s)
		}
		s.feed.wildcards[s] = struct{}{}
	}
	s.switchToLog(after)
}

// switchToLog makes Poll read the log after the position, and drops the pending changes that
// the log has.
func (s *Subscription) switchToLog(position int64) {
	s.logAfter = position
	for id, change := range s.pending.all() {
		if change.Position > position {
			s.pending.delete(id)
		}
	}
	s.signal()
}

// Wake returns a channel that receives a value when Poll may return changes.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

func (s *Subscription) signal() { signal(s.wake) }

func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// push adds a change. It is called in commit order.
func (s *Subscription) push(change *StatusChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logAfter >= 0 {
		return // Poll reads it from the log
	}
	last, byID := s.positions.get(change.UserID)
	if change.Position <= last {
		return // delivered by a response: the store publishes a commit before the feed
	}
	if !byID && !s.pending.has(change.UserID) && s.pending.len() >= s.feed.limits.pending {
		s.switchToLog(min(s.oldestNotByID(), change.Position) - 1)
		return
	}
	s.pending.set(change.UserID, change)
	if !s.paused.has(change.UserID) {
		s.notify()
	}
}

// oldestNotByID returns the first position pending for a user not subscribed by id. Every
// change before it was delivered, except for users subscribed by id.
func (s *Subscription) oldestNotByID() int64 {
	oldest := int64(math.MaxInt64)
	for id, change := range s.pending.all() {
		if !s.positions.has(id) {
			oldest = min(oldest, change.Position)
		}
	}
	return oldest
}

// DeliveredThrough returns the position up to which every change was delivered by Poll or
// Resume. A client that resumes after it misses no status.
func (s *Subscription) DeliveredThrough() int64 {
	s.feed.mu.Lock() // a commit sets the head before it pushes its changes
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deliveredThrough()
}

// deliveredThrough requires both locks.
func (s *Subscription) deliveredThrough() int64 {
	through := s.feed.Head().Position
	if s.logAfter >= 0 {
		through = min(through, s.logAfter)
	}
	for _, change := range s.pending.all() {
		through = min(through, change.Position-1)
	}
	for _, h := range s.paused.all() {
		through = min(through, h.through)
	}
	return through
}

// Drained returns a SERVER_DRAINING error with DeliveredThrough as its position.
func (s *Subscription) Drained() error {
	return user.NewDrainingError(s.feed.Head().Epoch, s.DeliveredThrough())
}
