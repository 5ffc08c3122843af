// Package fair shares the processors among callers.
//
// The Go runtime has no priorities: the goroutines of one caller's thousand requests run before
// the later request of another caller. Therefore a request runs in a slot of a Scheduler, and releases
// it while it waits for its body, the store, an event or its peer. There are as many slots as
// processors, and one caller holds at most one fewer while there are others. Free slots go to the
// waiting callers round-robin, as in API Priority and Fairness of Kubernetes.
package fair

import (
	"sync"
	"time"
)

const (
	// lendAfter is how long no slot was granted before the Scheduler lends one to a caller that has
	// none: holders may run for long, or wait without having released their slots.
	lendAfter = 2 * time.Millisecond
	// lendMoreAfter is the same for a caller that has one.
	lendMoreAfter = 100 * time.Millisecond
)

// Scheduler grants slots to requests. It is safe for concurrent use.
type Scheduler struct {
	mu      sync.Mutex
	slots   int // in total, without lent ones
	free    int // negative while slots are lent
	most    int // slots of one caller beside others
	flows   map[string]*flow
	waiting list[*flow] // flows with waiters, the next one first
	queued  int         // waiters
	granted uint64      // number of slots granted so far
	lent    int64       // number of slots lent so far
	timed   bool        // the timer of lend runs
	waiters sync.Pool   // of *waiter
}

// flow is the queue of one caller.
type flow struct {
	caller string
	slots  int // that belong to it
	held   int // of them
	queue  list[*waiter]
	// to is the caller to which Move assigned a slot of this one last, nil: none. from is the number of callers whose to is
	// this one. They are the addresses of an authenticated caller, and no other callers.
	to   *flow
	from int
}

type waiter struct {
	slot *Slot
	wake chan struct{} // has room for one
}

// NewScheduler returns a scheduler with a slot for each processor.
func NewScheduler() *Scheduler {
	processors := Processors()
	s := &Scheduler{slots: processors, free: processors, most: max(1, processors-1), flows: make(map[string]*flow)}
	s.waiters.New = func() any { return &waiter{wake: make(chan struct{}, 1)} }
	return s
}

// Stats returns the numbers of slots held, of requests that wait for a slot, and of slots lent so far.
func (s *Scheduler) Stats() (held, waiting int, lent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots - s.free, s.queued, s.lent
}

// Slot is the right of one request to run. A nil or zero Slot always runs. The goroutines of a
// request share its slot, and the first of them that waits releases it.
type Slot struct {
	scheduler *Scheduler // set by Open
	flow      *flow      // nil: closed. This and held are under the lock of the scheduler.
	held      bool
}

// Open prepares the slot of a request of the caller. It is called before the other methods.
func (t *Slot) Open(s *Scheduler, caller string) {
	if s == nil {
		return
	}
	t.scheduler = s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.flow = s.flowOf(caller)
}

// Close releases the slot. A waiting Acquire returns, and later ones return at once.
func (t *Slot) Close() {
	if !t.opened() {
		return
	}
	s := t.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(t)
	if t.flow != nil {
		s.leave(t.flow)
		t.flow = nil
	}
}

// Move assigns the slot to another caller. If that caller holds its share, Move waits for its turn: a caller could otherwise hold
// more by requests that begin as those of its address.
func (t *Slot) Move(caller string) {
	if !t.opened() {
		return
	}
	s := t.scheduler
	s.mu.Lock()
	if t.flow == nil || t.flow.caller == caller {
		s.mu.Unlock()
		return
	}
	from, to := t.flow, s.flowOf(caller)
	from.join(to)
	held := t.held
	if held && to.held < s.limit(to) {
		from.held--
		to.held++
		held = false
	}
	if held {
		s.release(t)
	}
	s.leave(from)
	t.flow = to
	if !held {
		s.mu.Unlock()
		return
	}
	s.acquire(t)
}

// Acquire waits for the caller's turn to run, unless the slot is held.
func (t *Slot) Acquire() {
	if t.opened() {
		t.scheduler.mu.Lock()
		t.scheduler.acquire(t)
	}
}

// Release releases the slot, and reports whether it was held. Every function that may block calls it
// first; a release of a slot that is not held has no effect.
func (t *Slot) Release() (held bool) {
	if !t.opened() {
		return false
	}
	s := t.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.release(t)
}

// Resume acquires the slot again if Release released it.
func (t *Slot) Resume(held bool) {
	if held {
		t.Acquire()
	}
}

func (t *Slot) opened() bool { return t != nil && t.scheduler != nil }

func (s *Scheduler) flowOf(caller string) *flow {
	f := s.flows[caller]
	if f == nil {
		f = &flow{caller: caller}
		s.flows[caller] = f
	}
	f.slots++
	return f
}

func (s *Scheduler) leave(f *flow) {
	if f.slots--; f.slots == 0 {
		delete(s.flows, f.caller)
		f.join(nil)
	}
}

// join records that the slots of f are moved to another caller.
func (f *flow) join(to *flow) {
	if f.to != nil {
		f.to.from--
	}
	if f.to = to; to != nil {
		to.from++
	}
}

// limit returns the number of slots that f may hold: all while there is no other caller.
func (s *Scheduler) limit(f *flow) int {
	caller := f
	if f.to != nil {
		caller = f.to
	}
	flows := caller.from
	if caller.slots > 0 {
		flows++
	}
	if flows == len(s.flows) {
		return s.slots
	}
	return s.most
}

// acquire is called with the lock and returns without it.
func (s *Scheduler) acquire(t *Slot) {
	if t.held || t.flow == nil || s.free > 0 && t.flow.held < s.limit(t.flow) && t.flow.queue.empty() {
		s.hand(t)
		s.mu.Unlock()
		return
	}
	w, _ := s.waiters.Get().(*waiter)
	w.slot = t
	if t.flow.queue.empty() {
		s.waiting.push(t.flow)
	}
	t.flow.queue.push(w)
	s.queued++
	if !s.timed {
		s.timed = true
		granted := s.granted
		time.AfterFunc(lendAfter, func() { s.lend(granted, 0) })
	}
	s.mu.Unlock()
	<-w.wake
	s.waiters.Put(w)
}

// hand grants a slot to t, unless t holds one or is closed.
func (s *Scheduler) hand(t *Slot) {
	if t.held || t.flow == nil {
		return
	}
	s.free--
	t.held = true
	t.flow.held++
	s.granted++
}

// release releases the slot of t, and grants free slots to waiters.
func (s *Scheduler) release(t *Slot) (held bool) {
	if !t.held {
		return false
	}
	t.held = false
	t.flow.held--
	s.free++
	for s.free > 0 && s.rotate(s.limit) {
		s.next()
	}
	return true
}

// next grants a slot to the first waiter of the next flow.
func (s *Scheduler) next() {
	f := s.waiting.pop()
	w := f.queue.pop()
	s.queued--
	if !f.queue.empty() {
		s.waiting.push(f)
	}
	s.hand(w.slot)
	w.slot = nil
	w.wake <- struct{}{}
}

// lend grants one additional slot if none was granted for a time. Its arguments are the state of the
// previous check: the slots granted by then, and the time since the last grant.
func (s *Scheduler) lend(granted uint64, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting.empty() {
		s.timed = false
		return
	}
	if idle += lendAfter; s.granted != granted {
		idle = 0
	}
	if idle > 0 && s.rotate(holdsNone) || idle >= lendMoreAfter {
		s.next()
		s.lent++
		idle = 0
	}
	granted = s.granted
	time.AfterFunc(lendAfter, func() { s.lend(granted, idle) })
}

// holdsNone is the limit of a caller to which a slot is lent.
func holdsNone(*flow) int { return 1 }

// rotate moves the first caller that holds fewer slots than its limit to the front, and reports whether there is one.
func (s *Scheduler) rotate(limit func(*flow) int) bool {
	for range s.waiting.len() {
		if f := s.waiting.first(); f.held < limit(f) {
			return true
		}
		s.waiting.push(s.waiting.pop())
	}
	return false
}
