package rest

import (
	"bytes"
	"io"
	"sync"
)

const (
	pipeBytes = 16 << 10 // buffer size
	wakeBytes = 8 << 10  // minimum data that wakes the reader while the writer holds
)

// pipe is a bounded in-memory pipe from the handler's goroutine to the reader of the stream. The
// writer reports whether it has more data ready or waits for data.
type pipe struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  bytes.Buffer

	held         bool // the writer has more data ready
	waits        bool // the writer waits for data
	reading      bool // the reader is draining the buffer
	idleReported bool // idle was called since the last write

	ended        bool  // the writer has closed the pipe
	err          error // error of the writer
	readerClosed bool  // the reader has closed the pipe

	// idle is called within Read when the buffer is empty and the writer does not hold.
	// waits is set if the writer waits for data; otherwise it may end the stream next.
	idle func(waits bool)
}

// newPipe returns a pipe whose writer holds. Otherwise a stream that ends at once would look
// idle first.
func newPipe(idle func(waits bool)) *pipe {
	p := &pipe{idle: idle, held: true}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// Write blocks while the buffer is full.
func (p *pipe) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() >= pipeBytes && !p.readerClosed {
		p.cond.Wait()
	}
	if p.readerClosed {
		return 0, io.ErrClosedPipe
	}
	p.idleReported = false
	p.buf.Write(data)
	if p.ready() {
		p.cond.Broadcast()
	}
	return len(data), nil
}

// ready reports whether the reader may read the buffer.
func (p *pipe) ready() bool {
	return p.ended || !p.held || p.reading || p.buf.Len() >= wakeBytes
}

// Read blocks until the pipe is ready.
func (p *pipe) Read(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.readerClosed:
			return 0, io.ErrClosedPipe
		case p.buf.Len() > 0 && p.ready():
			full := p.buf.Len() >= pipeBytes
			n, _ := p.buf.Read(data)
			p.reading = p.buf.Len() > 0
			if full && p.buf.Len() < pipeBytes {
				p.cond.Broadcast()
			}
			return n, nil
		case p.buf.Len() > 0: // held, and too little data
		case p.ended:
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		case !p.held && !p.idleReported:
			p.idleReported = true
			waits := p.waits
			p.mu.Unlock()
			p.idle(waits)
			p.mu.Lock()
			continue
		}
		p.cond.Wait()
	}
}

// hold reports whether the writer has more data ready, and if not, whether it waits for data.
func (p *pipe) hold(held, waits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.waits = held, waits
	if !held {
		p.idleReported = false
		p.cond.Broadcast()
	}
}

// end closes the pipe for writing.
func (p *pipe) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.err = true, err
	p.cond.Broadcast()
}

// Close closes the pipe for reading.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readerClosed = true
	p.cond.Broadcast()
	return nil
}
