package sqlite

import (
	"runtime"
	"time"
)

// processors limits the scans and group commits that run concurrently to GOMAXPROCS-1, at least
// one. The Go scheduler has no priorities: while long work uses all processors, a request waits
// up to 10 ms at each step.
type processors struct {
	slots  chan struct{}
	single bool // GOMAXPROCS is 1
}

func newProcessors() processors {
	n := runtime.GOMAXPROCS(0)
	return processors{slots: make(chan struct{}, max(1, n-1)), single: n == 1}
}

// acquire blocks until a slot is free. Waiters are served in FIFO order.
func (p processors) acquire() { p.slots <- struct{}{} }

func (p processors) release() { <-p.slots }

// yield lets other goroutines run between two parts of long work. The slot must be released.
func (p processors) yield() {
	if p.single {
		// After Gosched this goroutine would run again before the runtime polls the network.
		time.Sleep(yieldTime)
		return
	}
	runtime.Gosched()
}

// yieldTime is the duration of yield if GOMAXPROCS is 1.
const yieldTime = 200 * time.Microsecond
