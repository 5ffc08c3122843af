package main

import "runtime/debug"

// The size of the GC ballast: an allocation that is never written, so that it uses no physical memory. With the few megabytes of
// live heap of small calls, the garbage collector would run many times a second and use an eighth of the CPU time of a call. A
// higher GOGC would do the same for a small heap, but let a large one grow as well.
const (
	minBallast = 16 << 20
	maxBallast = 64 << 20
	// ballastShare is the part of the memory limit that the ballast takes, because it counts towards it.
	ballastShare = 32
)

// newBallast allocates the ballast. It returns nil if the memory limit is low.
func newBallast() []byte {
	size := min(debug.SetMemoryLimit(-1)/ballastShare, maxBallast)
	if size < minBallast {
		return nil
	}
	return make([]byte, size)
}
