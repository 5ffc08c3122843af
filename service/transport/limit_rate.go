package transport

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// rateShards is the number of locks.
	rateShards = 16
	// rateCallers is the number of callers per shard with a bucket of their own. Further ones share
	// rateShared buckets.
	rateCallers = 4096
	rateShared  = 256
)

// Rate is a token bucket per caller. It is safe for concurrent use. Its memory is bounded: full
// buckets are dropped, and callers above the maximum share buckets.
type Rate struct {
	interval time.Duration // interval of tokens
	burst    int64
	start    time.Time
	seed     maphash.Seed

	shards [rateShards]rateShard
}

// rateShard stores, for each bucket, when it is full again, since Rate.start.
type rateShard struct {
	mu sync.Mutex
	// A bucket that was not used for the time to fill one is full, so the older generation can be
	// dropped as a whole.
	current, previous map[string]int64
	rotated           int64
	shared            [rateShared]int64
}

// NewRate returns buckets of burst tokens that are refilled with perSecond tokens per second. Both
// must be positive.
func NewRate(perSecond float64, burst int) *Rate {
	r := &Rate{
		interval: max(time.Duration(float64(time.Second)/perSecond), 1), burst: int64(burst),
		start: time.Now(), seed: maphash.MakeSeed(),
	}
	for i := range r.shards {
		r.shards[i].current = make(map[string]int64)
	}
	return r
}

// Take takes a token of the caller. If there is none, it returns the time until the next one.
func (r *Rate) Take(caller string) (wait time.Duration, ok bool) {
	hash := maphash.String(r.seed, caller)
	s := &r.shards[hash%rateShards]
	fill := r.burst * int64(r.interval)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := int64(time.Since(r.start))
	if now-s.rotated >= fill {
		if now-s.rotated >= 2*fill {
			clear(s.current)
		}
		s.previous, s.current, s.rotated = s.current, make(map[string]int64), now
	}
	full, found := s.current[caller]
	if !found {
		full = s.previous[caller]
	}
	shared := &s.shared[hash/rateShards%rateShared]
	own := found || len(s.current) < rateCallers
	if !own {
		full = max(full, *shared)
	}
	full = max(full, now) + int64(r.interval)
	if excess := full - now - fill; excess > 0 {
		return time.Duration(excess), false
	}
	if own {
		s.current[caller] = full
	} else {
		*shared = full
	}
	return 0, true
}
