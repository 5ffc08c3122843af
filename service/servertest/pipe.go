package servertest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBytes is the size of the buffer of each direction of a connection.
const pipeBytes = 64 << 10

// newPipe returns the two ends of a buffered in-memory connection. Unlike those of bufconn, deadlines are exact:
// one that was replaced has no effect. net/http ends a read by a deadline after each HTTP/1.1 request.
func newPipe(client, server net.Addr) (clientEnd, serverEnd net.Conn) {
	up, down := newHalf(), newHalf()
	return &pipeEnd{in: down, out: up, local: client, remote: server}, &pipeEnd{in: up, out: down, local: server, remote: client}
}

// pipeEnd is one end of a connection.
type pipeEnd struct {
	in, out       *half
	local, remote net.Addr
}

// Read reads what the other end has written.
func (e *pipeEnd) Read(p []byte) (int, error) { return e.in.read(p) }

// Write blocks while the buffer is full.
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }

// LocalAddr returns the address of this end.
func (e *pipeEnd) LocalAddr() net.Addr { return e.local }

// RemoteAddr returns the address of the other end.
func (e *pipeEnd) RemoteAddr() net.Addr { return e.remote }

// SetReadDeadline sets the deadline of Read. In the past, it ends a Read in progress.
func (e *pipeEnd) SetReadDeadline(t time.Time) error { return e.in.setDeadline(&e.in.readEnd, t) }

// SetWriteDeadline sets the deadline of Write.
func (e *pipeEnd) SetWriteDeadline(t time.Time) error { return e.out.setDeadline(&e.out.writeEnd, t) }

// SetDeadline sets both deadlines.
func (e *pipeEnd) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t) // always nil
	return e.SetWriteDeadline(t)
}

// Close closes both directions. The peer can read what was written.
func (e *pipeEnd) Close() error {
	e.in.close(&e.in.readEnd)
	e.out.close(&e.out.writeEnd)
	return nil
}

// half is one direction of a connection.
type half struct {
	mu                sync.Mutex
	changed           sync.Cond
	buffer            []byte
	readEnd, writeEnd endState
}

// endState is the state of the reader or the writer of a half.
type endState struct {
	closed, expired bool
	timer           *time.Timer // of the deadline; nil: none was set
	deadlines       int         // counts the calls of setDeadline
}

func newHalf() *half {
	h := new(half)
	h.changed.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readEnd.closed:
			return 0, net.ErrClosed
		case h.readEnd.expired:
			return 0, os.ErrDeadlineExceeded
		case len(h.buffer) > 0:
			n := copy(p, h.buffer)
			h.buffer = h.buffer[n:]
			h.changed.Broadcast()
			return n, nil
		case h.writeEnd.closed:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (written int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.writeEnd.closed:
			return written, net.ErrClosed
		case h.readEnd.closed:
			return written, io.ErrClosedPipe
		case h.writeEnd.expired:
			return written, os.ErrDeadlineExceeded
		}
		n := min(len(p)-written, pipeBytes-len(h.buffer))
		h.buffer = append(h.buffer, p[written:written+n]...)
		if n > 0 {
			h.changed.Broadcast()
		}
		if written += n; written == len(p) {
			return written, nil
		}
		h.changed.Wait()
	}
}

func (h *half) setDeadline(end *endState, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	end.clearDeadline()
	wait := time.Until(t)
	end.expired = !t.IsZero() && wait <= 0
	if end.expired {
		h.changed.Broadcast()
	} else if !t.IsZero() {
		set := end.deadlines
		end.timer = time.AfterFunc(wait, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if end.deadlines == set {
				end.expired = true
				h.changed.Broadcast()
			}
		})
	}
	return nil
}

func (h *half) close(end *endState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end.closed = true
	end.clearDeadline()
	h.changed.Broadcast()
}

// clearDeadline makes the deadline have no effect, also if its timer has fired.
func (e *endState) clearDeadline() {
	e.deadlines++
	if e.timer != nil {
		e.timer.Stop()
	}
}
