package user

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"time"
)

const (
	idRandomBits = 22
	// idEpochMillis is 2024-01-01T00:00:00Z. 41 bits of milliseconds from it last until 2093.
	idEpochMillis = 1704067200000
)

// IDs generates user ids: 41 bits of milliseconds, which order ids by creation time, and
// 22 random bits, which make them unguessable. Ids can collide; the store then generates
// another one. IDs is safe for concurrent use if its source is.
type IDs struct {
	random io.Reader
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
	var b [4]byte
	if _, err := io.ReadFull(g.random, b[:]); err != nil {
		return 0, err
	}
	low := int64(binary.LittleEndian.Uint32(b[:]) & (1<<idRandomBits - 1))
	millis := max(at.UnixMilli()-idEpochMillis, 1)
	return millis<<idRandomBits | low, nil
}
