package intercept

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FailureBurst is how many failures of one cause are logged in each interval.
const FailureBurst = 20

// Sampler decides which of many like events are worth a line: the first of each key in each
// interval, so that a rare one always shows and a frequent one does not drown the rest.
// The keys must be few. It is safe for use by many goroutines.
type Sampler struct {
	every time.Duration
	burst int64
	keys  sync.Map // string -> *sampled
}

type sampled struct {
	due     atomic.Int64 // when the next interval begins, as Unix nanoseconds
	taken   atomic.Int64 // in this interval
	skipped atomic.Int64
}

// NewSampler returns a sampler that lets burst events of each key pass in each interval.
// With an interval of zero it lets all pass.
func NewSampler(every time.Duration, burst int) *Sampler {
	return &Sampler{every: every, burst: int64(burst)}
}

// Take reports whether the event is worth a line, and if so how many events of the key
// were not since the last one that was.
func (s *Sampler) Take(key string, now time.Time) (skipped int64, ok bool) {
	if s.every <= 0 {
		return 0, true
	}
	found, ok := s.keys.Load(key)
	if !ok {
		found, _ = s.keys.LoadOrStore(key, new(sampled))
	}
	events, _ := found.(*sampled) // there is nothing else in it
	at, due := now.UnixNano(), events.due.Load()
	// Of those that find the interval over at once, one begins the next.
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

// Clip shortens a text that a caller has chosen, for a line of the log.
func Clip(text string) string {
	const longest = 256
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "…"
}
