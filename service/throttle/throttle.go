// Package throttle limits the rate of similar log lines.
package throttle

import (
	"sync"
	"sync/atomic"
	"time"
)

// Throttle accepts the first events of each key in each interval. The number of keys must be
// bounded. It is safe for concurrent use.
type Throttle struct {
	every time.Duration
	burst int64
	keys  sync.Map // string -> *events
}

type events struct {
	due     atomic.Int64 // start of the next interval, in Unix nanoseconds
	taken   atomic.Int64 // in this interval
	skipped atomic.Int64
}

// New returns a throttle that accepts burst events of each key in each interval. An interval
// of zero accepts all events.
func New(every time.Duration, burst int) *Throttle {
	return &Throttle{every: every, burst: int64(burst)}
}

// Allow reports whether to log an event of the key, and how many of its events were skipped
// since the last one that was logged.
func (t *Throttle) Allow(key string, now time.Time) (skipped int64, ok bool) {
	if t.every <= 0 {
		return 0, true
	}
	found, ok := t.keys.Load(key)
	if !ok {
		found, _ = t.keys.LoadOrStore(key, new(events))
	}
	e, _ := found.(*events) // the only type stored
	at, due := now.UnixNano(), e.due.Load()
	// One of the concurrent events after the interval starts the next one.
	if at >= due && e.due.CompareAndSwap(due, at+int64(t.every)) {
		e.taken.Store(1)
		return e.skipped.Swap(0), true
	}
	if e.taken.Add(1) > t.burst {
		e.skipped.Add(1)
		return 0, false
	}
	return e.skipped.Swap(0), true
}
