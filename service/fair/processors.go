package fair

import (
	"runtime"
	"sync/atomic"
)

// spare is the number of processors that AddProcessors added.
var spare atomic.Int64

// Processors returns the number of processors for requests: GOMAXPROCS without those of
// AddProcessors.
func Processors() int { return max(1, runtime.GOMAXPROCS(0)-int(spare.Load())) }

// AddProcessors raises GOMAXPROCS, so that one processor of the runtime is idle while requests use
// Processors, a scan or group commit another one, and the garbage collector a third. The runtime
// polls the network at once only if one is idle, otherwise every 10 ms, and a new request waits for
// the work before it. With more threads than the machine has processors the kernel, which prefers
// threads that have waited, runs the short work of new requests between. A program calls it once,
// at start.
func AddProcessors() {
	const added = 3
	spare.Add(added)
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + added)
}
