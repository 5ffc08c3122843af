package throttle_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/throttle"
)

func TestThrottleAcceptsTheFirstOfEachInterval(t *testing.T) {
	s := throttle.New(time.Second, 1)
	start := time.Unix(1000, 0)
	for i, step := range []struct {
		procedure string
		after     time.Duration
		skipped   int64
		ok        bool
	}{
		{"/a", 0, 0, true},
		{"/a", time.Millisecond, 0, false},
		{"/a", 999 * time.Millisecond, 0, false},
		{"/b", 999 * time.Millisecond, 0, true}, // first of its key
		{"/a", time.Second, 2, true},
		{"/a", 1500 * time.Millisecond, 0, false},
		{"/a", time.Hour, 1, true},
	} {
		if skipped, ok := s.Allow(step.procedure, start.Add(step.after)); skipped != step.skipped || ok != step.ok {
			t.Errorf("step %d: Allow() = %d, %v, want %d, %v", i, skipped, ok, step.skipped, step.ok)
		}
	}
}

func TestThrottleBurst(t *testing.T) {
	s := throttle.New(time.Second, 3)
	start := time.Unix(1000, 0)
	for i, want := range []bool{true, true, true, false, false} {
		if _, ok := s.Allow("/a", start); ok != want {
			t.Errorf("event %d: Allow() = %v, want %v", i, ok, want)
		}
	}
	if skipped, ok := s.Allow("/a", start.Add(time.Second)); skipped != 2 || !ok {
		t.Errorf("Allow() in the next interval = %d, %v, want 2, true", skipped, ok)
	}
}

func TestThrottleWithoutInterval(t *testing.T) {
	s := throttle.New(0, 1)
	for range 3 {
		if _, ok := s.Allow("/a", time.Unix(0, 0)); !ok {
			t.Error("Allow() = false, want true")
		}
	}
}

func TestThrottleCountsConcurrentEvents(t *testing.T) {
	s := throttle.New(time.Millisecond, 1)
	var counted atomic.Int64
	var callers sync.WaitGroup
	start := time.Unix(1000, 0)
	for range 4 {
		callers.Go(func() {
			for i := range 1000 {
				if skipped, ok := s.Allow("/a", start.Add(time.Duration(i)*10*time.Microsecond)); ok {
					counted.Add(skipped + 1)
				}
			}
		})
	}
	callers.Wait()
	// The last line reports the events skipped since the line before it.
	if skipped, ok := s.Allow("/a", start.Add(time.Hour)); ok {
		counted.Add(skipped + 1)
	}
	if got := counted.Load(); got != 4001 {
		t.Errorf("accounted for %d of 4001 calls", got)
	}
}
