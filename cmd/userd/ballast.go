package main

import "runtime/debug"

// ballastBytes is the size of the GC ballast: an allocation that is never written, so that it
// uses no physical memory. With the few megabytes of live heap of small calls, the garbage
// collector would run many times a second and use an eighth of the CPU time of a call. A
// higher GOGC would do the same for a small heap, but let a large one grow as well.
const ballastBytes = 16 << 20

// newBallast allocates the ballast. It returns nil if the memory limit is low, because the
// ballast counts towards it.
func newBallast() []byte {
	const minLimit = 32 * ballastBytes
	if limit := debug.SetMemoryLimit(-1); limit < minLimit {
		return nil
	}
	return make([]byte, ballastBytes)
}
