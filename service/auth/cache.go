package auth

import (
	"crypto/sha256"
	"sync"
)

// cacheGeneration is the maximum number of entries in one generation.
const cacheGeneration = 4096

// cache stores verification results by the SHA-256 of the credentials. The results are
// valid for one verifier, such as a key set; a new verifier empties the cache. Eviction
// works by generation: when the young generation is full it replaces the old one, and a
// hit in the old generation moves to the young one. At most 2*cacheGeneration entries exist.
type cache[With, Found any] struct {
	mu         sync.Mutex
	with       *With
	young, old map[[sha256.Size]byte]*Found
}

func (s *cache[With, Found]) get(sum [sha256.Size]byte, with *With) *Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.with != with {
		return nil
	}
	if found := s.young[sum]; found != nil {
		return found
	}
	found := s.old[sum]
	if found != nil {
		s.add(sum, found)
	}
	return found
}

func (s *cache[With, Found]) put(sum [sha256.Size]byte, with *With, found *Found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.with != with {
		s.with, s.young, s.old = with, nil, nil
	}
	s.add(sum, found)
}

func (s *cache[With, Found]) add(sum [sha256.Size]byte, found *Found) {
	if s.young == nil || len(s.young) >= cacheGeneration {
		s.old, s.young = s.young, make(map[[sha256.Size]byte]*Found)
	}
	s.young[sum] = found
}
