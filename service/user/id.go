package user

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"sync"
	"time"
)

const (
	idRandomBits = 22
	// idStepBits is the number of random bits between two ids of a millisecond.
	idStepBits = 17
	// maxIDAhead is the number of milliseconds by which ids may be ahead of the time.
	maxIDAhead = 1000
	// idEpochMillis is 2024-01-01T00:00:00Z. 41 bits of milliseconds from it last until 2093.
	idEpochMillis = 1704067200000
)

// IDs generates user ids: 41 bits of milliseconds, which order ids by creation time, and
// 22 random bits, which make them unguessable. Ids of the same millisecond ascend by random
// steps of 17 bits: stores append users, and entries of indexes that end with the id, in their
// order. Ids can collide with those of another generator; the store then generates another one.
// IDs is safe for concurrent use.
type IDs struct {
	mu     sync.Mutex
	random io.Reader
	last   int64
}

// NewIDs returns a generator that reads random bytes from random; nil means crypto/rand.
func NewIDs(random io.Reader) *IDs {
	if random == nil {
		random = rand.Reader
	}
	return &IDs{random: random}
}

// New returns an id for a user created at the given time.
func (g *IDs) New(at time.Time) (int64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var b [4]byte
	if _, err := io.ReadFull(g.random, b[:]); err != nil {
		return 0, err
	}
	random := int64(binary.LittleEndian.Uint32(b[:]))
	millis := max(at.UnixMilli()-idEpochMillis, 1)
	if ahead := g.last>>idRandomBits - millis; 0 <= ahead && ahead < maxIDAhead {
		g.last += 1 + random&(1<<idStepBits-1)
	} else {
		g.last = millis<<idRandomBits | random&(1<<idRandomBits-1)
	}
	return g.last, nil
}
