package intercept

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FailureBurst is the number of failures of one kind that are logged in each interval.
const FailureBurst = 20

// Sampler limits similar log lines: it accepts the first events of each key in each interval.
// The number of keys must be bounded. It is safe for concurrent use.
type Sampler struct {
	every time.Duration
	burst int64
	keys  sync.Map // string -> *sampled
}

type sampled struct {
	due     atomic.Int64 // start of the next interval, in Unix nanoseconds
	taken   atomic.Int64 // in this interval
	skipped atomic.Int64
}

// NewSampler returns a sampler that accepts burst events of each key in each interval. An
// interval of zero accepts all events.
func NewSampler(every time.Duration, burst int) *Sampler {
	return &Sampler{every: every, burst: int64(burst)}
}

// Take reports whether the event is to be logged, and how many events of the key were skipped
// since the last one.
func (s *Sampler) Take(key string, now time.Time) (skipped int64, ok bool) {
	if s.every <= 0 {
		return 0, true
	}
	found, ok := s.keys.Load(key)
	if !ok {
		found, _ = s.keys.LoadOrStore(key, new(sampled))
	}
	events, _ := found.(*sampled) // the only type stored
	at, due := now.UnixNano(), events.due.Load()
	// One of the concurrent events after the interval starts the next one.
	if at >= due && events.due.CompareAndSwap(due, at+int64(s.every)) {
		events.taken.Store(1)
		return events.skipped.Swap(0), true
	}
	if events.taken.Add(1) > s.burst {
		events.skipped.Add(1)
		return 0, false
	}
	return events.skipped.Swap(0), true
}

// Clip truncates text from a caller for a log line.
func Clip(text string) string {
	const limit = 256
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
