package transport

import (
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
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
	limit rate.Limit
	burst int
	fill  time.Duration // time to fill an empty bucket
	seed  maphash.Seed

	shards [rateShards]rateShard
}

type rateShard struct {
	mu sync.Mutex
	// A bucket that was not used for the time to fill one is full, so the older generation can be
	// dropped as a whole.
	current, previous map[string]*rate.Limiter
	rotated           time.Time
	shared            [rateShared]*rate.Limiter // created on first use
}

// NewRate returns buckets of burst tokens that are refilled with perSecond tokens per second. Both
// must be positive.
func NewRate(perSecond float64, burst int) *Rate {
	return &Rate{
		limit: rate.Limit(perSecond), burst: burst, seed: maphash.MakeSeed(),
		fill: time.Duration(float64(burst) / perSecond * float64(time.Second)),
	}
}

// Take takes a token of the caller. If there is none, it returns the time until the next one.
func (r *Rate) Take(caller string) (wait time.Duration, ok bool) {
	hash := maphash.String(r.seed, caller)
	s, now := &r.shards[hash%rateShards], time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := now.Sub(s.rotated); age >= r.fill {
		if age >= 2*r.fill {
			s.current = nil
		}
		s.previous, s.current, s.rotated = s.current, make(map[string]*rate.Limiter), now
	}
	bucket := s.bucket(caller, hash/rateShards%rateShared, r.limit, r.burst)
	if bucket.AllowN(now, 1) {
		return 0, true
	}
	missing := 1 - bucket.TokensAt(now)
	return max(time.Duration(missing/float64(r.limit)*float64(time.Second)), 1), false
}

// bucket returns the bucket of the caller, which is a shared one if there are too many callers.
func (s *rateShard) bucket(caller string, shared uint64, limit rate.Limit, burst int) *rate.Limiter {
	bucket := s.current[caller]
	if bucket != nil {
		return bucket
	}
	if len(s.current) < rateCallers {
		if bucket = s.previous[caller]; bucket == nil {
			bucket = rate.NewLimiter(limit, burst)
		}
		s.current[caller] = bucket
		return bucket
	}
	if s.shared[shared] == nil {
		s.shared[shared] = rate.NewLimiter(limit, burst)
	}
	return s.shared[shared]
}
