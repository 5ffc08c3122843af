package auth

import (
	"crypto/sha256"
	"sync"
)

// maxSeen is how much each of two generations remembers.
const maxSeen = 4096

// seen remembers what was found out of credentials, by their SHA-256, and as long as
// what they were checked with stays the same. When the young generation is full it becomes
// the old one, and the old one is forgotten; what is asked for again moves to the young.
// So it holds at most twice maxSeen, and those in use stay.
type seen[With, Found any] struct {
	mu         sync.Mutex
	with       *With
	young, old map[[sha256.Size]byte]*Found
}

// get returns what was found with these; nil: it was not looked at.
func (s *seen[With, Found]) get(sum [sha256.Size]byte, with *With) *Found {
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

func (s *seen[With, Found]) put(sum [sha256.Size]byte, with *With, found *Found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.with != with {
		s.with, s.young, s.old = with, nil, nil
	}
	s.add(sum, found)
}

func (s *seen[With, Found]) add(sum [sha256.Size]byte, found *Found) {
	if s.young == nil || len(s.young) >= maxSeen {
		s.old, s.young = s.young, make(map[[sha256.Size]byte]*Found)
	}
	s.young[sum] = found
}
