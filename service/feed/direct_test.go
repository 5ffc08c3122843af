package feed_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// follower is a stream that the feed delivers to while it waits. It sometimes refuses, so that the stream is woken.
type follower struct {
	set *feed.Subscription

	mu      sync.Mutex // held except while the stream waits
	refuse  func() bool
	more    sync.Cond // signaled by received
	last    map[int64]feed.StatusChange
	direct  int // changes delivered by the feed
	flushed atomic.Int64
	fault   string
}

// Connection implements feed.Direct.
func (s *follower) Connection() any { return 1 }

// Deliver implements feed.Direct.
func (s *follower) Deliver(buf []feed.StatusChange) (sent, flush bool) {
	if !s.mu.TryLock() {
		return false, false
	}
	defer s.mu.Unlock()
	if s.refuse() {
		return false, false
	}
	changes := s.set.PollPending(buf)
	s.direct += len(changes)
	s.received(changes)
	return true, true
}

// Flush implements feed.Direct.
func (s *follower) Flush() { s.flushed.Add(1) }

func (s *follower) received(changes []feed.StatusChange) {
	for _, c := range changes {
		if c.Position <= s.last[c.UserID].Position {
			s.fault = "a change goes back"
		}
		s.last[c.UserID] = c
	}
	s.more.Broadcast()
}

// follow receives changes until stop is closed.
func (s *follower) follow(t *testing.T, stop <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.mu.Unlock()
		select {
		case <-s.set.Wake():
		case <-stop:
			s.mu.Lock()
			return
		}
		s.mu.Lock()
		changes, err := s.set.Poll(t.Context())
		if err != nil {
			t.Error(err)
		}
		s.received(changes)
	}
}

// Changes that are delivered partly by the feed and partly by the streams reach each stream in order, and the last one of each user
// reaches all of them.
func TestDirectDelivery(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(5)
	start := b.feed.Head().Position
	streams, stop := make([]*follower, 20), make(chan struct{})
	var running sync.WaitGroup
	for i := range streams {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		s := &follower{set: b.feed.Subscribe(0), last: map[int64]feed.StatusChange{}, refuse: func() bool { return random.IntN(4) == 0 }}
		s.more.L = &s.mu
		t.Cleanup(s.set.Close)
		s.set.DeliverBy(s)
		s.set.SubscribeAll(start)
		streams[i] = s
		running.Go(func() { s.follow(t, stop) })
	}
	want := map[int64]int64{}
	for n := range 500 {
		id := ids[n%len(ids)]
		want[id] = b.setStatus(id, user.Status(1+n/len(ids)%3), 0)
	}
	direct := 0
	for i, s := range streams {
		s.mu.Lock()
		for s.set.DeliveredThrough() < b.feed.Head().Position { // Poll marks changes as delivered while mu is held
			s.more.Wait()
		}
		for id, position := range want {
			if got := s.last[id].Position; got != position {
				t.Errorf("stream %d has position %d of user %d, want %d", i, got, id, position)
			}
		}
		if s.fault != "" {
			t.Errorf("stream %d: %s", i, s.fault)
		}
		direct += s.direct
		s.mu.Unlock()
	}
	if direct == 0 {
		t.Error("no change was delivered directly")
	}
	if streams[0].flushed.Load() == 0 {
		t.Error("the output was not flushed")
	}
	close(stop)
	running.Wait()
}

// The stream of a subscription that cannot be delivered to is woken.
func TestRefusedDeliveryWakes(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := &follower{set: b.feed.Subscribe(0), last: map[int64]feed.StatusChange{}, refuse: func() bool { return true }}
	defer s.set.Close()
	s.set.DeliverBy(s)
	b.subscribe(s.set, id)
	position := b.setStatus(id, user.StatusInactive, 0)
	<-s.set.Wake()
	changes, err := s.set.Poll(t.Context())
	if err != nil || len(changes) != 1 || changes[0].Position != position {
		t.Errorf("Poll() = %+v, %v, want position %d", changes, err, position)
	}
}

// shared is a stream of a connection. It sends its connection to events at each delivery, and the negative connection at a flush.
type shared struct {
	set        *feed.Subscription
	connection int
	unflushed  map[int]bool // by connection
	events     chan<- int
}

// Connection implements feed.Direct.
func (s *shared) Connection() any { return s.connection }

// Deliver implements feed.Direct.
func (s *shared) Deliver(buf []feed.StatusChange) (sent, flush bool) {
	flush = !s.unflushed[s.connection]
	s.unflushed[s.connection] = true
	s.set.PollPending(buf)
	s.events <- s.connection
	return true, flush
}

// Flush implements feed.Direct.
func (s *shared) Flush() {
	s.unflushed[s.connection] = false
	s.events <- -s.connection
}

// The streams of a connection are delivered one after the other, and each connection is flushed once.
func TestDeliveryByConnection(t *testing.T) {
	const connections, streams = 3, 8
	b := newBench(t)
	id := b.create()
	events, unflushed := make(chan int, 2*connections*streams), map[int]bool{}
	for i := range connections * streams {
		s := &shared{set: b.feed.Subscribe(0), connection: 1 + i%connections, unflushed: unflushed, events: events}
		s.set.DeliverBy(s)
		b.subscribe(s.set, id)
		t.Cleanup(func() {
			s.set.Close()
			if got, want := b.feed.Outputs(), min(i, connections); got != want { // the last one is closed first
				t.Errorf("Outputs() with %d subscriptions = %d, want %d", i, got, want)
			}
		})
	}
	for _, status := range []user.Status{user.StatusInactive, user.StatusActive} {
		b.setStatus(id, status, 0)
		var order []int // of connections
		for range connections * streams {
			if got := <-events; len(order) == 0 || order[len(order)-1] != got {
				order = append(order, got)
			}
		}
		if len(order) != connections {
			t.Errorf("order of the connections = %v, want each once", order)
		}
		flushed := map[int]int{}
		for range connections {
			flushed[<-events]++
		}
		for connection := 1; connection <= connections; connection++ {
			if got := flushed[-connection]; got != 1 {
				t.Errorf("connection %d was flushed %d times, want once", connection, got)
			}
		}
	}
}

// A subscription that must read the log is woken by PollPending, which returns nothing.
func TestPollPendingLeavesTheLogToTheStream(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(0)
	buf := make([]feed.StatusChange, 0, 4)
	for range 2 {
		select {
		case <-s.Wake():
		default:
			t.Fatal("the stream is not woken")
		}
		if got := s.PollPending(buf); len(got) != 0 {
			t.Errorf("PollPending() = %+v before the log was read, want none", got)
		}
	}
	if got := b.poll(s); len(got) != 1 || got[0].UserID != id {
		t.Errorf("Poll() = %+v, want the user", got)
	}
	b.setStatus(id, user.StatusInactive, 0)
	<-s.Wake()
	if got := s.PollPending(buf); len(got) != 1 || got[0].UserID != id {
		t.Errorf("PollPending() = %+v, want the change of the user", got)
	}
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v after everything was delivered, want none", got)
	}
}
