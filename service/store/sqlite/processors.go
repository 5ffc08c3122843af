package sqlite

import (
	"runtime"
	"time"
)

// processors bounds the work of many rows, reads and writes together, that runs at a time: one
// processor is left to everything else. The runtime has no priorities, and where long work occupies
// all processors a request waits for up to 10 ms at each of its steps.
type processors struct {
	slots  chan struct{}
	single bool // there is only one
}

func newProcessors() processors {
	n := runtime.GOMAXPROCS(0)
	return processors{slots: make(chan struct{}, max(1, n-1)), single: n == 1}
}

// acquire blocks until a processor may be used. Those that wait are served in their order.
func (p processors) acquire() { p.slots <- struct{}{} }

func (p processors) release() { <-p.slots }

// rest lets others run, between two parts of long work. The processor must have been released.
func (p processors) rest() {
	if p.single {
		// A goroutine that just yields runs again before the runtime looks for new requests.
		time.Sleep(restTime)
		return
	}
	runtime.Gosched()
}

// restTime is how long long work rests where there is one processor.
const restTime = 200 * time.Microsecond
