package intercept

import (
	"sync"
	"sync/atomic"
	"time"
)

// Sampler decides which of the calls that went well and fast are worth a line: the
// first of each procedure in each interval, so that a rare procedure always shows
// and a busy one does not drown the rest. It is safe for use by many goroutines.
type Sampler struct {
	every time.Duration
	calls sync.Map // procedure -> *sampled; as many as there are handlers
}

type sampled struct {
	due     atomic.Int64 // when the next line may be written, as Unix nanoseconds
	skipped atomic.Int64
}

// NewSampler returns a sampler that lets one call of each procedure pass in each
// interval. With an interval of zero it lets all pass.
func NewSampler(every time.Duration) *Sampler { return &Sampler{every: every} }

// Take reports whether the call is worth a line, and if so how many calls of the
// procedure were not since the last one that was.
func (s *Sampler) Take(procedure string, now time.Time) (skipped int64, ok bool) {
	if s.every <= 0 {
		return 0, true
	}
	found, ok := s.calls.Load(procedure)
	if !ok {
		found, _ = s.calls.LoadOrStore(procedure, new(sampled))
	}
	calls, _ := found.(*sampled) // there is nothing else in it
	at, due := now.UnixNano(), calls.due.Load()
	// Of those who find it due at once, one wins.
	if at < due || !calls.due.CompareAndSwap(due, at+int64(s.every)) {
		calls.skipped.Add(1)
		return 0, false
	}
	return calls.skipped.Swap(0), true
}
