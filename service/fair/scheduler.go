// Package fair shares the processors among callers.
//
// The Go runtime has no priorities: the goroutines of one caller's thousand requests run before
// the one of another caller that comes after them. So a request runs in a slot of a Scheduler, and gives it
// up while it waits for its body, the store, an event or its peer. There are as many slots as
// processors, and one caller has one fewer at most. Requests that wait for a slot get one in turn by
// caller, as in the API Priority and Fairness of Kubernetes.
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

// Scheduler hands out slots. It is safe for concurrent use.
type Scheduler struct {
	mu      sync.Mutex
	slots   int // in total, without those that are lent
	free    int // negative while slots are lent
	most    int // slots of one caller beside others
	flows   map[string]*flow
	waiting list[*flow] // flows with waiters, the next one first
	queued  int         // waiters
	granted uint64      // counts the slots that were handed out
	lent    int64       // counts those that were lent
	timed   bool        // the timer of lend runs
	// settled is closed when granted reaches settledAt; nil: Settle does not wait.
	settled   chan struct{}
	settledAt uint64
	waiters   sync.Pool // of *waiter
}

// flow is the queue of one caller.
type flow struct {
	caller string
	slots  int // that belong to it
	held   int // of them
	queue  list[*waiter]
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

// Stats returns the number of slots that requests hold and of requests that wait for one, and counts
// the slots that were lent.
func (s *Scheduler) Stats() (held, waiting int, lent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots - s.free, s.queued, s.lent
}

// Slot is the right of one request to run. A nil or zero Slot always runs. A request with several
// goroutines runs in one slot, which the first of them to wait gives up.
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

// Close gives the slot up for good. An Acquire that waits returns, as every later one does.
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

// Move makes the slot one of another caller.
func (t *Slot) Move(caller string) {
	if !t.opened() {
		return
	}
	s := t.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.flow == nil {
		return
	}
	to := s.flowOf(caller)
	if t.held {
		t.flow.held--
		to.held++
	}
	s.leave(t.flow)
	t.flow = to
}

// Acquire waits for the caller's turn to run, unless the slot is held.
func (t *Slot) Acquire() {
	if t.opened() {
		t.scheduler.mu.Lock()
		t.scheduler.acquire(t)
	}
}

// Release gives the slot up, and reports whether it was held.
func (t *Slot) Release() (held bool) {
	if !t.opened() {
		return false
	}
	s := t.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.release(t)
}

// Resume acquires the slot again if Release gave it up.
func (t *Slot) Resume(held bool) {
	if held {
		t.Acquire()
	}
}

// Settle waits until the requests that wait for a slot now have got one, but no longer than most.
// Work that serves many requests at once calls it first, so that they share the work. At most one
// goroutine calls it at a time.
func (t *Slot) Settle(most time.Duration) {
	if !t.opened() {
		return
	}
	s := t.scheduler
	s.mu.Lock()
	if s.waiting.empty() {
		s.mu.Unlock()
		return
	}
	settled := make(chan struct{})
	s.settled, s.settledAt = settled, s.granted+uint64(s.queued)
	s.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-settled:
	case <-timer.C:
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
	}
}

// limit returns the number of slots that one caller may have: all while there is no other caller.
func (s *Scheduler) limit() int {
	if len(s.flows) == 1 {
		return s.slots
	}
	return s.most
}

// acquire is called with the lock and returns without it.
func (s *Scheduler) acquire(t *Slot) {
	if t.held || t.flow == nil || s.free > 0 && t.flow.held < s.limit() && t.flow.queue.empty() {
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

// hand gives a slot to t, unless that has one or is closed.
func (s *Scheduler) hand(t *Slot) {
	if t.held || t.flow == nil {
		return
	}
	s.free--
	t.held = true
	t.flow.held++
	if s.granted++; s.settled != nil && s.granted >= s.settledAt {
		close(s.settled)
		s.settled = nil
	}
}

// release takes the slot of t back, and hands out what is free.
func (s *Scheduler) release(t *Slot) (held bool) {
	if !t.held {
		return false
	}
	t.held = false
	t.flow.held--
	s.free++
	for s.free > 0 && s.rotate(s.limit()) {
		s.next()
	}
	return true
}

// next hands a slot to the first waiter of the flow whose turn it is.
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

// lend hands out one slot more if none was granted for a time. Its arguments are those of the last
// look: the slots granted by then, and for how long none was.
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
	if idle > 0 && s.rotate(1) || idle >= lendMoreAfter {
		s.next()
		s.lent++
		idle = 0
	}
	granted = s.granted
	time.AfterFunc(lendAfter, func() { s.lend(granted, idle) })
}

// rotate makes the first caller with fewer slots the next one, and reports whether there is one.
func (s *Scheduler) rotate(slots int) bool {
	for range s.waiting.len() {
		if s.waiting.first().held < slots {
			return true
		}
		s.waiting.push(s.waiting.pop())
	}
	return false
}
