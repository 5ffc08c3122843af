package main

import "runtime/debug"

// heapReserve is memory that counts in the garbage collector's sums and is never
// touched, so that it takes no memory of the machine. The collector runs when the heap
// has doubled: with the few megabytes that are in use while calls are small and short,
// that is many times a second, and took an eighth of a call's processor time. With a
// reserve it runs when that much garbage has come about, and the larger the heap, the
// less the reserve matters.
const heapReserve = 16 << 20

// reserveHeap returns the reserve, which counts until nothing refers to it any more.
// Where the memory is bounded closely there is none: it would count towards the bound.
func reserveHeap() []byte {
	const scarce = 32 * heapReserve
	if limit := debug.SetMemoryLimit(-1); limit < scarce {
		return nil
	}
	return make([]byte, heapReserve)
}
