package rest

import (
	"bytes"
	"io"
	"sync"
)

const (
	pipeBytes = 16 << 10 // what a stream may be ahead of its reader
	wakeBytes = 8 << 10  // what is worth waking the reader for while the writer holds
)

// pipe carries a stream within the process, from the handler's goroutine to the one
// that reads it. It is bounded, and it knows whether the writer has more at hand: one
// that holds goes on writing, one that does not may be waiting.
type pipe struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  bytes.Buffer

	held    bool // the writer has more at hand
	waits   bool // the writer has said that it has not, and waits for more
	reading bool // the reader empties the buffer
	told    bool // idle was called since the last byte was written

	ended bool  // by the writer
	err   error // with which it ended; nil: well
	gone  bool  // the reader has gone

	// idle is called by the reader's goroutine, within Read, when all that was written
	// has been read and the writer does not hold; waits: it may be long before it writes
	// again. Otherwise what it does next may be to end.
	idle func(waits bool)
}

// newPipe returns a pipe whose writer has something at hand until it says otherwise: a
// reader who found nothing yet would take a stream that ends at once for one that waits.
func newPipe(idle func(waits bool)) *pipe {
	p := &pipe{idle: idle, held: true}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// Write waits while there is too much ahead of the reader.
func (p *pipe) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() >= pipeBytes && !p.gone {
		p.cond.Wait()
	}
	if p.gone {
		return 0, io.ErrClosedPipe
	}
	p.told = false
	p.buf.Write(data)
	if p.ready() {
		p.cond.Broadcast()
	}
	return len(data), nil
}

// ready reports whether the reader is to be woken for what there is.
func (p *pipe) ready() bool {
	return p.ended || !p.held || p.reading || p.buf.Len() >= wakeBytes
}

// Read waits until it is worth it.
func (p *pipe) Read(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.gone:
			return 0, io.ErrClosedPipe
		case p.buf.Len() > 0 && p.ready():
			full := p.buf.Len() >= pipeBytes
			n, _ := p.buf.Read(data)
			p.reading = p.buf.Len() > 0
			if full && p.buf.Len() < pipeBytes {
				p.cond.Broadcast()
			}
			return n, nil
		case p.buf.Len() > 0: // held, and not worth it yet
		case p.ended:
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		case !p.held && !p.told:
			p.told = true
			waits := p.waits
			p.mu.Unlock()
			p.idle(waits)
			p.mu.Lock()
			continue
		}
		p.cond.Wait()
	}
}

// hold says whether the writer has more at hand, and if not whether it waits.
func (p *pipe) hold(held, waits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.waits = held, waits
	if !held {
		p.told = false
		p.cond.Broadcast()
	}
}

// end is called when nothing more will be written.
func (p *pipe) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.err = true, err
	p.cond.Broadcast()
}

// Close is called by the reader when it wants no more.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.cond.Broadcast()
	return nil
}
