package transport

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// rateShards is how many locks the callers share.
	rateShards = 16
	// rateCallers is how many callers a shard knows by name at a time; those beyond
	// share rateShared buckets.
	rateCallers = 4096
	rateShared  = 256
)

// Rate is a token bucket for each caller. It is safe for use by many goroutines, and
// its memory is bounded: a caller whose bucket is full again is forgotten, and while
// there are more callers than it has room for, further ones share buckets.
type Rate struct {
	each  time.Duration // between two tokens
	burst int64
	born  time.Time
	seed  maphash.Seed

	shards [rateShards]rateShard
}

// rateShard keeps the time, after the birth of its Rate, when each bucket is full
// again.
type rateShard struct {
	mu sync.Mutex
	// Buckets that nobody used for as long as it takes to fill one are full, so the
	// older half can be dropped as a whole.
	young, old map[string]int64
	turned     int64
	shared     [rateShared]int64
}

// NewRate returns buckets that hold burst tokens and get perSecond of them back each
// second. Both must be positive.
func NewRate(perSecond float64, burst int) *Rate {
	r := &Rate{
		each: max(time.Duration(float64(time.Second)/perSecond), 1), burst: int64(burst),
		born: time.Now(), seed: maphash.MakeSeed(),
	}
	for i := range r.shards {
		r.shards[i].young = make(map[string]int64)
	}
	return r
}

// Take takes a token of the caller's. Where there is none it says how long the next
// one takes.
func (r *Rate) Take(caller string) (wait time.Duration, ok bool) {
	hash := maphash.String(r.seed, caller)
	s := &r.shards[hash%rateShards]
	fill := r.burst * int64(r.each)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := int64(time.Since(r.born))
	if now-s.turned >= fill {
		if now-s.turned >= 2*fill {
			clear(s.young)
		}
		s.old, s.young, s.turned = s.young, make(map[string]int64), now
	}
	full, known := s.young[caller]
	if !known {
		full = s.old[caller]
	}
	shared := &s.shared[hash/rateShards%rateShared]
	byName := known || len(s.young) < rateCallers
	if !byName {
		full = max(full, *shared)
	}
	full = max(full, now) + int64(r.each)
	if late := full - now - fill; late > 0 {
		return time.Duration(late), false
	}
	if byName {
		s.young[caller] = full
	} else {
		*shared = full
	}
	return 0, true
}
