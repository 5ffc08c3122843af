package fair

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newScheduler returns a scheduler with so many slots.
func newScheduler(slots int) *Scheduler {
	s := NewScheduler()
	s.free, s.most = slots, slots
	return s
}

// open opens a slot on a goroutine of its own, and sends its name when it has it.
func open(s *Scheduler, caller, name string, opened chan<- string) *Slot {
	t := new(Slot)
	go func() {
		t.Open(s, caller)
		t.Acquire()
		opened <- name
	}()
	synctest.Wait()
	return t
}

func TestCallersGetSlotsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		opened := make(chan string, 10)
		slots := map[string]*Slot{}
		for _, name := range []string{"a1", "a2", "a3", "b1", "a4", "c1", "b2"} {
			slots[name] = open(s, name[:1], name, opened)
		}
		var got []string
		for range len(slots) {
			name := <-opened
			got = append(got, name)
			slots[name].Close()
			synctest.Wait()
		}
		if want := []string{"a1", "a2", "b1", "c1", "a3", "b2", "a4"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if len(s.flows) != 0 || s.free != 1 {
			t.Errorf("got %d callers and %d free slots after the last one, want 0 and 1", len(s.flows), s.free)
		}
	})
}

func TestReleaseLetsOthersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		opened := make(chan string, 2)
		first := open(s, "a", "first", opened)
		second := open(s, "a", "second", opened)
		<-opened
		paused := first.Release()
		if got := <-opened; got != "second" {
			t.Errorf("got %q, want the second", got)
		}
		resumed := false
		go func() {
			first.Resume(paused)
			resumed = true
		}()
		synctest.Wait()
		if resumed {
			t.Error("the first resumed while the second held the slot")
		}
		second.Close()
		synctest.Wait()
		if !resumed {
			t.Error("the first did not resume")
		}
		first.Close()
	})
}

// A connection is closed by another goroutine than the one that reads.
func TestCloseEndsAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		opened := make(chan string, 3)
		first := open(s, "a", "first", opened)
		<-opened
		second := open(s, "a", "second", opened)
		third := open(s, "b", "third", opened)
		second.Close()
		first.Close()
		synctest.Wait()
		if len(opened) != 2 || s.free != 0 {
			t.Errorf("got %d that returned and %d free slots, want 2 and 0", len(opened), s.free)
		}
		third.Close()
		first.Acquire()
		if s.free != 1 || len(s.flows) != 0 {
			t.Errorf("got %d free slots and %d callers, want 1 and 0", s.free, len(s.flows))
		}
	})
}

// A holder that runs for long, or waits without Release, must not stop the others.
func TestSlotsAreLentWhileNoneIsGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		opened := make(chan string, 10)
		begin := time.Now()
		slots := map[string]*Slot{}
		for _, name := range []string{"a1", "a2", "a3", "b1", "c1"} {
			slots[name] = open(s, name[:1], name, opened)
		}
		if got := <-opened; got != "a1" {
			t.Fatalf("got %q first, want a1", got)
		}
		for _, want := range []struct {
			name string
			most time.Duration
		}{{"b1", 2 * lendAfter}, {"c1", 3 * lendAfter}, {"a2", lendMoreAfter + 4*lendAfter}, {"a3", 2*lendMoreAfter + 5*lendAfter}} {
			got := <-opened
			if after := time.Since(begin); got != want.name || after > want.most {
				t.Errorf("got %q after %v, want %q within %v", got, after, want.name, want.most)
			}
		}
		slots["b1"].Close()
		slots["c1"].Close()
		slots["a2"].Close()
		if d := open(s, "d", "d", opened); s.free != -1 || len(opened) != 0 {
			t.Errorf("got %d free slots and %d granted, want -1 and 0: two are in use", s.free, len(opened))
		} else {
			slots["a3"].Close()
			slots["a1"].Close()
			<-opened
			d.Close()
		}
		time.Sleep(2 * lendAfter) // the timer ends
		if s.free != 1 || len(s.flows) != 0 {
			t.Errorf("got %d free slots and %d callers, want 1 and 0", s.free, len(s.flows))
		}
		if _, waiting, lent := s.Stats(); waiting != 0 || lent != 4 {
			t.Errorf("Stats() = %d waiting, %d lent, want 0 and 4", waiting, lent)
		}
	})
}

func TestOneCallerLeavesASlotToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(3)
		s.most = 2
		opened := make(chan string, 10)
		slots := map[string]*Slot{}
		for _, name := range []string{"a1", "a2", "a3", "b1", "b2"} {
			slots[name] = open(s, name[:1], name, opened)
		}
		if got := len(opened); got != 3 || s.flows["a"].held != 2 || s.flows["b"].held != 1 {
			t.Errorf("got %d slots granted, %d of a and %d of b, want 3, 2 and 1", got, s.flows["a"].held, s.flows["b"].held)
		}
		if held, waiting, lent := s.Stats(); held != s.slots || waiting != 2 || lent != 0 {
			t.Errorf("Stats() = %d held, %d waiting, %d lent, want %d, 2 and 0", held, waiting, lent, s.slots)
		}
		for _, name := range []string{"a1", "b1", "a2", "b2", "a3"} {
			slots[name].Close()
			synctest.Wait()
		}
		if s.free != 3 || len(opened) != 5 {
			t.Errorf("got %d free slots and %d granted, want 3 and 5", s.free, len(opened))
		}
	})
}

// Two goroutines of one request share its slot.
func TestASlotIsHeldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2)
		var slot Slot
		slot.Open(s, "a")
		slot.Acquire()
		slot.Acquire()
		if s.free != 1 {
			t.Errorf("got %d free slots after two acquisitions, want 1", s.free)
		}
		if !slot.Release() || slot.Release() || s.free != 2 {
			t.Errorf("got %d free slots after two releases, want 2", s.free)
		}
		s.free = 0
		opened := make(chan string, 2)
		for range 2 {
			go func() {
				slot.Acquire()
				opened <- "a"
			}()
		}
		synctest.Wait()
		s.mu.Lock()
		s.free = 1
		s.next()
		s.mu.Unlock()
		<-opened
		slot.Release()
		<-opened
		if slot.Close(); s.free != 1 {
			t.Errorf("got %d free slots after Close, want 1", s.free)
		}
	})
}

func TestMoveChangesTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		opened := make(chan string, 10)
		moved := open(s, "address", "moved", opened)
		<-opened
		moved.Move("subject")
		if s.flows["address"] != nil || s.flows["subject"] == nil {
			t.Errorf("got the callers %v, want subject", s.flows)
		}
		moved.Close()
		if len(s.flows) != 0 {
			t.Errorf("got %d callers, want none", len(s.flows))
		}
	})
}

// A caller must not hold more than its share by requests that begin as those of its address.
func TestMoveWaitsForTheTurnOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2)
		s.slots, s.most = 2, 1
		opened := make(chan string, 10)
		var other Slot
		other.Open(s, "other")
		first := open(s, "address", "first", opened)
		first.Move("subject")
		second := open(s, "address", "second", opened)
		moved := false
		go func() {
			second.Move("subject")
			moved = true
		}()
		synctest.Wait()
		if moved || s.free != 1 || s.flows["subject"].held != 1 {
			t.Errorf("moved is %v, %d slots are free, the caller holds %d, want false, 1 and 1", moved, s.free, s.flows["subject"].held)
		}
		first.Close()
		synctest.Wait()
		if !moved || s.flows["subject"].held != 1 {
			t.Errorf("after the first slot was closed: moved is %v, the caller holds %d, want true and 1", moved, s.flows["subject"].held)
		}
		second.Close()
		other.Close()
		time.Sleep(2 * lendAfter) // the timer ends
		if s.free != 2 || len(s.flows) != 0 {
			t.Errorf("got %d free slots and %d callers, want 2 and 0", s.free, len(s.flows))
		}
	})
}

// The addresses of an authenticated caller are no other callers.
func TestLoneCallerOfManyAddressesHasAllSlots(t *testing.T) {
	s := newScheduler(2)
	s.slots, s.most = 2, 1
	conns, requests := make([]Slot, 3), make([]Slot, 3)
	for i := range conns {
		address := strconv.Itoa(i)
		conns[i].Open(s, address)
		requests[i].Open(s, address)
		requests[i].Move("subject")
	}
	for _, caller := range []string{"subject", "0", "2"} {
		if got := s.limit(s.flows[caller]); got != 2 {
			t.Errorf("limit(%s) of a lone caller = %d, want 2", caller, got)
		}
	}
	for i := range requests {
		requests[i].Close()
	}
	if got := s.limit(s.flows["1"]); got != 2 {
		t.Errorf("limit() of an idle caller's address = %d, want 2", got)
	}
	var other Slot
	other.Open(s, "other")
	for i := range conns {
		if got := s.limit(s.flows[strconv.Itoa(i)]); got != 1 {
			t.Errorf("limit() of address %d beside another caller = %d, want 1", i, got)
		}
	}
}

// A slot that is moved counts to its new caller alone, and one that is closed or held by it already is not moved.
func TestMoveCounts(t *testing.T) {
	s := newScheduler(2)
	s.slots = 2
	var slot, rest Slot
	rest.Open(s, "address")
	slot.Open(s, "address")
	slot.Acquire()
	for range 2 {
		slot.Move("subject")
		if from, to := s.flows["address"].held, s.flows["subject"].held; from != 0 || to != 1 {
			t.Errorf("the address holds %d slots and the caller %d, want 0 and 1", from, to)
		}
		if s.flows["subject"].slots != 1 {
			t.Errorf("the caller has %d requests, want 1", s.flows["subject"].slots)
		}
	}
	if held, waiting, lent := s.Stats(); held != 1 || waiting != 0 || lent != 0 {
		t.Errorf("Stats() = %d, %d, %d, want 1, 0, 0", held, waiting, lent)
	}
	slot.Close()
	slot.Move("other")
	if s.flows["other"] != nil {
		t.Error("a closed slot was moved")
	}
	rest.Close()
	if held, _, _ := s.Stats(); held != 0 || len(s.flows) != 0 {
		t.Errorf("%d slots are held by %d callers at the end, want 0 and 0", held, len(s.flows))
	}
}

// A context carries the slot of its request.
func TestContext(t *testing.T) {
	slot := new(Slot)
	if got := FromContext(NewContext(t.Context(), slot)); got != slot {
		t.Errorf("FromContext = %p, want %p", got, slot)
	}
	if got := FromContext(t.Context()); got != nil {
		t.Errorf("FromContext without a slot = %p, want nil", got)
	}
}

// While the first of several waiting callers holds a slot that is never released, the time until it is lent a slot starts at the last grant.
func TestNoSlotIsLentAfterAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1)
		s.slots = 1
		var holder Slot
		holder.Open(s, "holder")
		holder.Acquire()
		opened := make(chan string, 10)
		slots := []*Slot{open(s, "holder", "a", opened)} // holds one, so it is lent one after lendMoreAfter
		time.Sleep(lendMoreAfter - lendAfter/2)
		holder.Release() // grants a
		<-opened
		slots = append(slots, open(s, "holder", "b", opened))
		time.Sleep(lendMoreAfter - lendAfter)
		if _, waiting, lent := s.Stats(); waiting != 1 || lent != 0 {
			t.Errorf("before the time since the last grant: %d wait and %d were lent, want 1 and 0", waiting, lent)
		}
		time.Sleep(2 * lendAfter)
		if _, waiting, lent := s.Stats(); waiting != 0 || lent != 1 {
			t.Errorf("after the time since the last grant: %d wait and %d were lent, want 0 and 1", waiting, lent)
		}
		<-opened
		for _, slot := range slots {
			slot.Close()
		}
		holder.Close()
		time.Sleep(2 * lendAfter) // the timer ends
		again := open(s, "holder", "c", opened)
		<-opened
		last := open(s, "other", "d", opened)
		time.Sleep(2 * lendAfter)
		if _, _, lent := s.Stats(); lent != 2 {
			t.Errorf("%d slots were lent after a time without waiters, want 2", lent)
		}
		again.Close()
		last.Close()
		time.Sleep(2 * lendAfter)
	})
}

func TestNilSlotRuns(*testing.T) {
	var slot *Slot
	slot.Acquire()
	slot.Resume(slot.Release())
	slot.Move("a")
	slot.Close()
	new(Slot).Open(nil, "a")
}

// In any order of operations no more requests run than there are slots, and no slot is lost.
func TestSlotsAreConserved(t *testing.T) {
	const slots = 3
	s := newScheduler(slots)
	var running, most atomic.Int64
	enter := func() {
		n := running.Add(1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				return
			}
		}
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 200 {
				var slot Slot
				slot.Open(s, strconv.Itoa(i%7))
				slot.Acquire()
				enter()
				for range random.IntN(4) {
					running.Add(-1)
					if random.IntN(2) == 0 {
						slot.Move(strconv.Itoa(random.IntN(9)))
					}
					slot.Resume(slot.Release())
					enter()
				}
				running.Add(-1)
				slot.Close()
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free != slots || len(s.flows) != 0 || !s.waiting.empty() {
		t.Errorf("got %d free slots and %d callers, want %d and none", s.free, len(s.flows), slots)
	}
	// The timer may have lent one to a busy machine.
	if got := most.Load(); got > slots+5 {
		t.Errorf("%d requests ran at a time, want %d", got, slots)
	}
}

func BenchmarkSlot(b *testing.B) {
	b.Run("free", func(b *testing.B) {
		s := newScheduler(1)
		for b.Loop() {
			var slot Slot
			slot.Open(s, "a")
			slot.Acquire()
			slot.Close()
		}
	})
	b.Run("contended", func(b *testing.B) {
		s := newScheduler(1)
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				var slot Slot
				slot.Open(s, "a")
				slot.Acquire()
				slot.Close()
			}
		})
	})
}

// A caller has all slots while it is alone, and one fewer beside another.
func TestLoneCallerHasAllSlots(t *testing.T) {
	s := NewScheduler()
	slots := make([]Slot, s.slots)
	for i := range slots {
		slots[i].Open(s, "a")
		slots[i].Acquire() // would wait for a lent slot if there were a limit
	}
	if held, waiting, lent := s.Stats(); held != s.slots || waiting != 0 || lent != 0 {
		t.Errorf("Stats() = %d held, %d waiting, %d lent, want %d, 0 and 0", held, waiting, lent, s.slots)
	}
	var other Slot
	other.Open(s, "b")
	if got, want := s.limit(s.flows["a"]), max(1, s.slots-1); got != want {
		t.Errorf("limit() beside another caller = %d, want %d", got, want)
	}
}

// The processors that AddProcessors adds have no slots.
func TestAddProcessors(t *testing.T) {
	processors := runtime.GOMAXPROCS(0)
	defer func() {
		spare.Store(0)
		runtime.GOMAXPROCS(processors)
	}()
	AddProcessors()
	if got, want := runtime.GOMAXPROCS(0), processors+3; got != want {
		t.Errorf("GOMAXPROCS = %d, want %d", got, want)
	}
	if got, want := NewScheduler().slots, processors; got != want {
		t.Errorf("NewScheduler() has %d slots, want %d", got, want)
	}
}
