package sqlite

import (
	"runtime"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/fair"
)

// processors limits the scans and group commits that run concurrently to one fewer than there are
// processors, at least one: the Go scheduler has no priorities. Group commits precede scans.
type processors struct {
	single bool // GOMAXPROCS is 1

	mu      sync.Mutex
	free    int
	waiting [2][]chan struct{} // of group commits, of scans
}

type workload int

const (
	commits workload = iota
	scans
)

func newProcessors() *processors {
	return &processors{free: max(1, fair.Processors()-1), single: runtime.GOMAXPROCS(0) == 1}
}

// acquire blocks until a processor is free. Waiters of a workload are served in FIFO order.
func (p *processors) acquire(w workload) {
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	p.waiting[w] = append(p.waiting[w], turn)
	p.mu.Unlock()
	<-turn
}

func (p *processors) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.waiting {
		if len(p.waiting[w]) > 0 {
			close(p.waiting[w][0])
			p.waiting[w] = p.waiting[w][1:]
			return
		}
	}
	p.free++
}

// yield lets other goroutines run between two parts of long work. The slot must be released.
func (p *processors) yield() {
	if p.single {
		// After Gosched this goroutine would run again before the runtime polls the network.
		time.Sleep(yieldTime)
		return
	}
	runtime.Gosched()
}

// yieldTime is the duration of yield if GOMAXPROCS is 1.
const yieldTime = 200 * time.Microsecond
