package intercept_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/yourorg/userservice/service/intercept"
)

func TestSamplerAcceptsTheFirstOfEachInterval(t *testing.T) {
	s := intercept.NewSampler(time.Second, 1)
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
		if skipped, ok := s.Take(step.procedure, start.Add(step.after)); skipped != step.skipped || ok != step.ok {
			t.Errorf("step %d: Take() = %d, %v, want %d, %v", i, skipped, ok, step.skipped, step.ok)
		}
	}
}

func TestSamplerBurst(t *testing.T) {
	s := intercept.NewSampler(time.Second, 3)
	start := time.Unix(1000, 0)
	for i, want := range []bool{true, true, true, false, false} {
		if _, ok := s.Take("/a", start); ok != want {
			t.Errorf("event %d: Take() = %v, want %v", i, ok, want)
		}
	}
	if skipped, ok := s.Take("/a", start.Add(time.Second)); skipped != 2 || !ok {
		t.Errorf("Take() in the next interval = %d, %v, want 2, true", skipped, ok)
	}
}

func TestClip(t *testing.T) {
	for text, want := range map[string]int{"": 0, "short": 5, strings.Repeat("a", 256): 256, strings.Repeat("é", 70_000): 256 + len("…")} {
		if got := intercept.Clip(text); len(got) != want || !utf8.ValidString(got) {
			t.Errorf("Clip() of %d bytes has %d, want %d of UTF-8", len(text), len(got), want)
		}
	}
}

func TestSamplerWithoutInterval(t *testing.T) {
	s := intercept.NewSampler(0, 1)
	for range 3 {
		if _, ok := s.Take("/a", time.Unix(0, 0)); !ok {
			t.Error("Take() = false, want true")
		}
	}
}

func TestSamplerCountsConcurrentEvents(t *testing.T) {
	s := intercept.NewSampler(time.Millisecond, 1)
	var counted atomic.Int64
	var callers sync.WaitGroup
	start := time.Unix(1000, 0)
	for range 4 {
		callers.Go(func() {
			for i := range 1000 {
				if skipped, ok := s.Take("/a", start.Add(time.Duration(i)*10*time.Microsecond)); ok {
					counted.Add(skipped + 1)
				}
			}
		})
	}
	callers.Wait()
	// The last line reports the events skipped since the line before it.
	if skipped, ok := s.Take("/a", start.Add(time.Hour)); ok {
		counted.Add(skipped + 1)
	}
	if got := counted.Load(); got != 4001 {
		t.Errorf("accounted for %d of 4001 calls", got)
	}
}
