package feed_test

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// maxFollows is the limit of users subscribed by id on one stream.
const maxFollows = 3

// subscription is the part of feed.Subscription used by a stream. Injected faults wrap it.
type subscription interface {
	Pause(id int64) (feed.PauseState, error)
	Resume(id, position int64)
	Unsubscribe(id int64)
	SubscribeAll(after int64)
	Wake() <-chan struct{}
	Poll(ctx context.Context) ([]feed.StatusChange, error)
	DeliveredThrough() int64
	Close()
}

// message is a client message whose response is outstanding.
type message struct {
	id      int64 // 0: subscribe to all users
	after   int64
	fresh   bool
	current *user.CurrentStatus
	pending *user.Pending
	err     error
}

// delivery is the last status of a user delivered to the client.
type delivery struct {
	position int64
	time     time.Time
	again    bool // a later SubscribeAll moved to an earlier position
}

// stream is a status stream and its client.
type stream struct {
	w         *world
	set       subscription
	origin    uint64
	messages  []message
	known     map[int64]delivery
	named     map[int64]bool // users subscribed by id
	removed   map[int64]bool // users to unsubscribe unless an outstanding response has a status
	start     int64          // start of SubscribeAll; -1: not called
	delivered int64
	fresh     int // users subscribed by id so far
}

func newStream(w *world, plant fault) *stream {
	origin := w.feed.NewOrigin()
	return &stream{
		w: w, origin: origin, set: inject(plant, w.feed.Subscribe(origin), w.feed),
		known: map[int64]delivery{}, named: map[int64]bool{}, removed: map[int64]bool{}, start: -1,
	}
}

// send receives a message about a user.
func (s *stream) send(r *rapid.T) {
	m := message{id: s.w.anyID()}
	s.w.notef("%d: message about %d", s.origin, m.id)
	var paused feed.PauseState
	if paused, m.err = s.set.Pause(m.id); m.err != nil {
		if s.start >= 0 || len(s.named) < maxFollows-len(s.messages) {
			s.w.failf("Pause(%d) = %v with %d users subscribed by id", m.id, m.err, len(s.named))
		}
		return
	}
	m.fresh = paused.Fresh
	if paused.Fresh {
		s.namedMore()
	}
	switch {
	case rapid.Bool().Draw(r, "set"):
		op := &user.SetStatus{ID: m.id, Status: user.Status(rapid.IntRange(1, 3).Draw(r, "status"))}
		if rapid.IntRange(0, 3).Draw(r, "refused") == 0 {
			op.Time = s.w.clock.Now().Add(24 * time.Hour)
		}
		m.pending = s.w.store.Submit(context.Background(), user.Batch{Changes: []user.Change{{Op: op, By: user.Author{Origin: s.origin}}}})
	case paused.Outstanding > 0:
		m.pending = s.w.store.Submit(context.Background(), user.Batch{Changes: []user.Change{{Op: &user.ReadBarrier{ID: m.id}}}})
	default:
		m.current, m.err = s.read(m.id)
	}
	s.messages = append(s.messages, m)
}

// namedMore counts a subscription by id. Beyond maxFollows a subscription to all users may
// evict positions ahead of DeliveredThrough.
func (s *stream) namedMore() {
	if s.fresh++; s.fresh < maxFollows || s.start < 0 {
		return
	}
	through := s.set.DeliveredThrough()
	for id, d := range s.known {
		d.again = d.again || d.position > through
		s.known[id] = d
	}
}

func (s *stream) read(id int64) (*user.CurrentStatus, error) {
	found, err := s.w.store.Statuses(context.Background(), []int64{id})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, user.NewNotFoundError(id)
	case found[0].Deleted:
		return nil, user.NewDeletedError(id, found[0].Position)
	}
	return &found[0], nil
}

// followAll receives a message that subscribes to all users.
func (s *stream) followAll(r *rapid.T) {
	m := message{after: rapid.Int64Range(0, s.w.feed.Head().Position).Draw(r, "after")}
	s.w.notef("%d: message: subscribe to all after %d", s.origin, m.after)
	s.messages = append(s.messages, m)
}

// respond sends the first outstanding response.
func (s *stream) respond() {
	if len(s.messages) == 0 {
		return
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	if m.id == 0 {
		s.w.notef("%d: SubscribeAll(%d)", s.origin, m.after)
		s.began(m.after)
		s.set.SubscribeAll(m.after)
		return
	}
	if m.pending != nil {
		s.w.store.notifyFeed() // before the result is returned
		results, err := m.pending.Wait(context.Background())
		if m.err = cmp.Or(err, results[0].Err); m.err == nil {
			current := results[0].User.CurrentStatus()
			m.current = &current
		}
	}
	position, gone := int64(0), false
	switch {
	case user.HasReason(m.err, user.UserNotFound):
		position, gone = feed.MaxPosition, true
		s.gone(m.id, user.UserNotFound)
	case user.HasReason(m.err, user.UserDeleted):
		e, _ := user.AsError(m.err)
		position, gone = e.Position, true
		s.deliver(feed.StatusChange{UserID: m.id, Position: position, Current: user.CurrentStatus{UserID: m.id, Deleted: true}}, true)
	case m.err == nil:
		position = m.current.Position
		s.named[m.id] = true
		s.deliver(feed.StatusChange{UserID: m.id, Position: position, Current: *m.current}, true)
	}
	s.w.notef("%d: response about %d@%d: %v", s.origin, m.id, position, m.err)
	s.set.Resume(m.id, position)
	if position != 0 {
		delete(s.removed, m.id)
	}
	if gone || m.err != nil && m.fresh {
		s.remove(m.id)
	}
	if s.removed[m.id] && !s.waits(m.id) {
		delete(s.named, m.id)
		delete(s.removed, m.id)
	}
}

// waits reports whether a response for a user is outstanding.
func (s *stream) waits(id int64) bool {
	return slices.ContainsFunc(s.messages, func(m message) bool { return m.id == id })
}

// began records the start of SubscribeAll. After an earlier start changes are delivered again.
func (s *stream) began(after int64) {
	if s.start >= 0 && after >= s.start {
		return
	}
	s.start, s.delivered = after, min(s.delivered, after)
	for id, d := range s.known {
		d.again = true
		s.known[id] = d
	}
}

func (s *stream) remove(id int64) {
	s.set.Unsubscribe(id)
	if s.waits(id) {
		s.removed[id] = true
	} else {
		delete(s.named, id)
	}
}

// watch subscribes to users as WatchUserStatus does.
func (s *stream) watch(r *rapid.T) {
	if len(s.named) > 0 || len(s.messages) > 0 || s.start >= 0 || len(s.w.ids) == 0 {
		return
	}
	ids := rapid.SliceOfNDistinct(rapid.SampledFrom(s.w.ids), 1, min(maxFollows, len(s.w.ids)), rapid.ID[int64]).Draw(r, "watched")
	for _, id := range ids {
		if _, err := s.set.Pause(id); err != nil {
			s.w.failf("Pause(%d) = %v on an empty stream", id, err)
			return
		}
	}
	head := s.w.feed.Head().Position
	after := rapid.SampledFrom([]int64{0, head / 2, head}).Draw(r, "after")
	changes, err := s.w.feed.Statuses(context.Background(), ids, after)
	if err != nil {
		r.Fatal(err)
	}
	changes = slices.DeleteFunc(changes, func(c feed.StatusChange) bool { return c.Position > head })
	slices.SortFunc(changes, func(a, b feed.StatusChange) int { return cmp.Compare(a.Position, b.Position) })
	s.fresh += len(ids)
	for _, id := range ids {
		s.named[id] = true
		s.known[id] = delivery{position: s.w.store.history.latestUpTo(id, after)} // the client has it
	}
	position := make(map[int64]int64)
	for _, c := range changes {
		if c.Position > 0 {
			s.deliver(c, false)
		}
		position[c.UserID] = c.Position
	}
	for _, id := range ids {
		s.set.Resume(id, position[id])
	}
	for _, c := range changes {
		if c.Err() != nil {
			s.remove(c.UserID)
		}
	}
}

// poll delivers the changes of one Poll.
func (s *stream) poll() {
	select {
	case <-s.set.Wake():
	default:
		return
	}
	changes, err := s.set.Poll(context.Background())
	if err != nil {
		s.w.failf("Poll() = %v", err)
		return
	}
	last := int64(0)
	for _, c := range changes {
		if c.Position <= last {
			s.w.failf("Poll() has position %d after %d", c.Position, last)
		}
		last = c.Position
		if s.waits(c.UserID) {
			s.w.failf("Poll() has user %d, whose response is outstanding", c.UserID)
		}
		s.deliver(c, false)
	}
	for _, c := range changes {
		if c.Err() != nil {
			s.remove(c.UserID)
		}
	}
}

// deliver checks a delivery against the history and earlier deliveries.
func (s *stream) deliver(c feed.StatusChange, response bool) {
	s.w.notef("%d: delivers %d@%d (%v, %v), response %t", s.origin, c.UserID, c.Position, c.Current.Status, c.Err(), response)
	f := s.w.store.history.facts[c.Position]
	switch gone, _ := user.AsError(c.Err()); {
	case f == nil || f.userID != c.UserID:
		s.w.failf("user %d was delivered at position %d, which has no status of it", c.UserID, c.Position)
		return
	case gone != nil && gone.Reason != f.reason, gone == nil && c.Current.Status != f.status:
		s.w.failf("position %d was delivered as %+v, want %+v", c.Position, c, *f)
	case gone == nil && !slices.ContainsFunc(f.times, c.Current.Time.Equal):
		s.w.failf("position %d was delivered with time %v, want one of %v", c.Position, c.Current.Time, f.times)
	}
	last := s.known[c.UserID]
	switch {
	case c.Position < last.position:
		s.w.failf("user %d went back from position %d to %d", c.UserID, last.position, c.Position)
	case c.Position == last.position && !response && !last.again:
		s.w.failf("user %d was delivered a second time at position %d", c.UserID, c.Position)
	case c.Position == last.position && c.Current.Time.Before(last.time) && c.Err() == nil:
		s.w.failf("user %d went back from time %v to %v at position %d", c.UserID, last.time, c.Current.Time, c.Position)
	}
	s.known[c.UserID] = delivery{position: c.Position, time: c.Current.Time}
}

// gone records a response without a position: the user does not exist.
func (s *stream) gone(id int64, reason user.Reason) {
	p := s.w.store.history.latest[id]
	if p > 0 && s.w.store.history.facts[p].reason != reason {
		s.w.failf("user %d was reported with %s", id, reason)
	}
	s.known[id] = delivery{position: p, again: true}
}

// check checks that a client that resumes after DeliveredThrough misses no newest status.
func (s *stream) check() {
	through := s.set.DeliveredThrough()
	if through < s.delivered {
		s.w.failf("DeliveredThrough() = %d, want at least %d as before", through, s.delivered)
	}
	s.delivered = through
	for _, id := range s.w.ids {
		first := int64(math.MaxInt64)
		if s.start >= 0 {
			first = s.start + 1
		}
		if s.named[id] {
			first = 0
		}
		if p := s.w.store.history.latest[id]; p >= first && p <= through && s.known[id].position < p {
			s.w.failf("DeliveredThrough() = %d, but user %d was delivered up to %d and has %d", through, id, s.known[id].position, p)
		}
	}
}
