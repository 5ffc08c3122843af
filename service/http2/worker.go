package http2

import (
	"slices"
	"sync"
	"time"
)

const (
	// maxIdleWorkers bounds the workers that wait for a request, and maxIdleTime about how long they wait.
	maxIdleWorkers = 256
	maxIdleTime    = 2 * time.Second
)

// workers runs handlers on goroutines that are reused: a new goroutine would grow its stack for each request. No worker
// is idle while no connection is open.
type workers struct {
	now func() monotonic

	mu       sync.Mutex
	conns    int
	idle     []*worker // the last one was used last
	trimming bool      // trim will run
}

type worker struct {
	work  chan *stream // nil ends the worker
	since monotonic
}

// run runs the handler of a stream. It does not block.
func (p *workers) run(st *stream) {
	p.mu.Lock()
	last := len(p.idle) - 1
	if last < 0 {
		p.mu.Unlock()
		go p.loop(st)
		return
	}
	w := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	p.mu.Unlock()
	w.work <- st
}

func (p *workers) loop(st *stream) {
	var w *worker // none while the first handler runs, which may be a long stream
	for st != nil {
		st.serve()
		if w == nil {
			w = &worker{work: make(chan *stream, 1)}
		}
		if !p.park(w) {
			return
		}
		st = <-w.work
	}
}

// park makes a worker idle. It returns false if the worker must end.
func (p *workers) park(w *worker) bool {
	w.since = p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == 0 || len(p.idle) >= maxIdleWorkers {
		return false
	}
	p.idle = append(p.idle, w)
	if !p.trimming {
		p.trimming = true
		time.AfterFunc(maxIdleTime, p.trim)
	}
	return true
}

// trim ends the workers that were idle for maxIdleTime.
func (p *workers) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	cold := 0
	for before := p.now() - maxIdleTime; cold < len(p.idle) && p.idle[cold].since <= before; cold++ {
		p.idle[cold].work <- nil
	}
	p.idle = slices.Delete(p.idle, 0, cold)
	if p.trimming = len(p.idle) > 0; p.trimming {
		time.AfterFunc(maxIdleTime, p.trim)
	}
}

func (p *workers) connOpened() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns++
}

func (p *workers) connClosed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns--; p.conns > 0 {
		return
	}
	for _, w := range p.idle {
		w.work <- nil
	}
	p.idle = nil
}
