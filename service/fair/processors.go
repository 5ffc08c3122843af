package fair

import (
	"runtime"
	"sync/atomic"
)

// spare is the number of processors that AddProcessor added.
var spare atomic.Int64

// Processors returns the number of processors for requests: GOMAXPROCS without those of
// AddProcessor.
func Processors() int { return max(1, runtime.GOMAXPROCS(0)-int(spare.Load())) }

// AddProcessor raises GOMAXPROCS by one. While all processors execute long work, the runtime polls
// the network every 10 ms. One more than the machine has polls it at once, and the kernel, which
// prefers threads that have waited, runs the short work of new requests between. A program calls
// it once, at start.
func AddProcessor() {
	spare.Add(1)
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
}
