package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/fair"
)

const (
	// readBuffer has room for the frames of several small calls. Every connection
	// has one.
	readBuffer = 4 << 10
	// gatherBytes bounds what a connection gathers; whoever writes more waits.
	gatherBytes = 64 << 10
	// keptBytes is the most that a connection keeps for later.
	keptBytes = 8 << 10
	// closeGrace is how long the last bytes of a connection may take once it is
	// closed.
	closeGrace = time.Second
	// looks is how often a write that stands still is looked at within a stall limit.
	looks = 4
	// drainBytes is the most that is read of a connection that has been dismissed.
	drainBytes = 1 << 20
)

// preface is how a client begins HTTP/2, and fullPreface all that is in front of its
// first frame.
var (
	fullPreface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	preface     = fullPreface[:len("PRI * HTTP/2.0")]
)

// gatherConn is one connection. As any net.Conn it is safe for one reader and
// several writers.
type gatherConn struct {
	net.Conn

	listener *Listener
	reader   *bufio.Reader // nil: nothing was read yet
	seen     []byte        // of the preface; the reader's own
	state    tlsState      // of a connection with TLS
	left     func()        // called once, when the connection is closed
	budget   *frameBudget  // of HTTP/2
	windows  *sendWindows  // of HTTP/2; set before there is a request
	talked   atomic.Bool   // the peer has sent something
	asked    atomic.Bool   // a request has come to the handler
	slow     atomic.Int64  // how often a part of what waited was taken, and not all in time
	peer     netip.Addr    // stands for the peer in limits
	memory   connMemory
	slot     fair.Slot   // of HTTP/2: frames are handled in it
	aborted  atomic.Bool // for the sake of others

	mu       sync.Mutex
	room     sync.Cond // told when there is room, or an error
	gather   bool      // it is HTTP/2
	out      []byte    // what waits to be written
	spare    []byte    // what was written before, to be used again
	flushing bool      // a goroutine writes
	closing  bool
	ended    bool   // the budget is spent: nothing more is taken
	begun    bool   // a frame was written
	goodbye  []byte // what the peer is told at the end of the present frame, if it ends
	err      error  // of a write; the connection is of no use any more
	kept     int64  // reserved for what waits to be written
	moved    int64  // DATA that was sent and read at the last flush
}

func newGatherConn(c net.Conn, l *Listener) *gatherConn {
	g := &gatherConn{Conn: c, listener: l}
	if addr := c.RemoteAddr(); addr != nil {
		g.peer = peerOf(addr.String())
	}
	g.slot.Open(l.opts.Scheduler, g.peer.String())
	g.memory.progress.Store(int64(l.now()))
	g.room.L = &g.mu
	return g
}

// Read reads what has come. The first bytes tell HTTP/2 from HTTP/1.
func (c *gatherConn) Read(p []byte) (n int, err error) {
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.Conn, readBuffer)
	}
	n, err = c.fill(p)
	if err != nil && c.state.conn != nil {
		c.state.failed(c.listener, err)
	}
	if n > 0 && len(c.seen) < len(preface) {
		if below := c.state.below; below != nil && below.memory.Swap(nil) != nil && c.memory.endHandshake() != nil {
			return 0, c.refuseShort()
		}
		if err := c.look(p[:n]); err != nil {
			c.state.refuse(c.listener, err)
			return 0, io.EOF // net/http writes a response of its own after other errors
		}
	}
	if n > 0 && c.budget != nil {
		if cause := c.budget.received(p[:n]); cause != "" {
			c.dismiss(cause)
			return 0, net.ErrClosed
		}
	}
	if n > 0 && c.account(n) != nil {
		return 0, c.refuseShort()
	}
	return n, err
}

// fill reads. Bytes that no handler waits for are passed on in the turn of the peer, so that requests
// of one peer arrive no faster than they are handled.
func (c *gatherConn) fill(p []byte) (int, error) {
	if c.reader.Buffered() > 0 {
		return c.reader.Read(p)
	}
	n, err := c.reader.Read(p)
	if c.budget != nil || c.memory.requests.Load() == 0 {
		c.slot.Acquire()
		c.slot.Release() // the handling of the frames has no end that shows here
	}
	return n, err
}

// look finds out which protocol the connection speaks. It returns an error if TLS has
// negotiated another one.
func (c *gatherConn) look(p []byte) error {
	c.talked.Store(true)
	before := len(c.seen)
	c.seen = append(c.seen, p[:min(len(p), len(preface)-before)]...)
	if !bytes.HasPrefix(preface, c.seen) {
		c.seen = preface // it is something else: look no more
		return c.state.allows(false)
	}
	if len(c.seen) < len(preface) {
		return nil
	}
	if err := c.state.allows(true); err != nil {
		return err
	}
	c.mu.Lock()
	c.gather = true
	if c.state.below != nil {
		c.state.below.above.Store(c)
	}
	c.budget = newFrameBudget(c.listener.opts.Frames, before)
	c.windows = c.budget.windows
	c.memory.credited(firstConnWindow - connWindow)
	c.budget.memory, c.budget.maxStreams = &c.memory, int32(c.listener.opts.MaxConcurrentStreams)
	c.mu.Unlock()
	return nil
}

// dismiss ends a connection that has spent its budget. The peer is told why, if
// the frame that is being written is whole; and what it has sent is read for a
// moment, since a connection that is closed over unread bytes takes back what it sent
// last.
func (c *gatherConn) dismiss(cause Cause) {
	c.listener.overdrawn(c, cause)
	c.mu.Lock()
	c.ended = true
	c.goodbye = farewell(cause)
	c.finish(nil)
	c.room.Broadcast()
	_ = c.Conn.SetDeadline(time.Now().Add(closeGrace)) // if it fails the connection is gone already
	late := time.AfterFunc(closeGrace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.goodbye = nil
		c.room.Broadcast()
	})
	for (c.flushing || c.goodbye != nil) && c.err == nil && !c.closing {
		c.room.Wait()
	}
	late.Stop()
	c.mu.Unlock()
	if c.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, drainBytes))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = net.ErrClosed
	}
}

// finish takes what is left of the present frame from p, and when it is whole says
// goodbye. It is called with the lock.
func (c *gatherConn) finish(p []byte) {
	n := 0
	for ; n < len(p) && !c.budget.out.between(); n++ {
		c.budget.sent(p[n : n+1])
	}
	if c.out = append(c.out, p[:n]...); c.budget.out.between() {
		if !c.begun && n == 0 {
			c.out = append(c.out, emptySettings()...)
		}
		c.out = append(c.out, c.goodbye...)
		c.goodbye = nil
	}
	if !c.flushing && len(c.out) > 0 {
		c.flushing = true
		go c.flush()
	}
}

// Write takes the bytes to be written soon. An error of theirs comes with a later
// Write.
func (c *gatherConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gather {
		c.mu.Unlock()
		if n, err = c.Conn.Write(p); n > 0 {
			c.memory.progress.Store(int64(c.listener.now()))
		}
		c.mu.Lock()
		return n, err
	}
	for n < len(p) {
		for len(c.out) >= c.capacity(len(p)-n) && c.err == nil && !c.closing && !c.ended {
			c.room.Wait()
		}
		if c.err != nil {
			return n, c.err
		}
		if c.closing {
			return n, net.ErrClosed
		}
		if c.ended {
			// An error would have net/http close the connection before its time.
			if c.goodbye != nil {
				c.finish(p[n:])
			}
			return len(p), nil
		}
		c.begun = true
		more := min(c.capacity(len(p)-n)-len(c.out), len(p)-n)
		c.out = append(c.out, p[n:n+more]...)
		if c.budget != nil {
			c.budget.sent(c.out[len(c.out)-more:])
		}
		n += more
		if !c.flushing {
			c.flushing = true
			go c.flush()
		}
	}
	return n, nil
}

// flush writes until nothing waits. It lets others go first, once, so that they can
// add what they have.
func (c *gatherConn) flush() {
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && c.err == nil {
		batch := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		err := c.writeAll(batch)
		c.mu.Lock()
		if c.err = err; cap(batch) <= keptBytes {
			c.spare = batch[:0]
		}
		c.flushed()
		c.room.Broadcast()
	}
	if cap(c.out) > keptBytes {
		c.out = nil
	}
	c.flushing = false
	c.room.Broadcast()
	if c.err != nil || c.closing {
		_ = c.end() // the error of the write is the one that counts
	}
}

// writeAll writes the batch. It fails if no byte at all is taken for the limit.
func (c *gatherConn) writeAll(batch []byte) (err error) {
	if c.state.below != nil {
		_, err = c.Conn.Write(batch) // what is below TLS keeps the limit
	} else {
		_, err = c.writeArmed(c.Conn, batch)
	}
	return err
}

// writeArmed writes it all, and looks several times within the stall limit how far it
// is. It gives up when none of as many looks in turn finds any progress.
func (c *gatherConn) writeArmed(to net.Conn, p []byte) (written int, err error) {
	for still := 0; written < len(p); {
		if err := c.arm(to); err != nil {
			return written, err
		}
		n, err := to.Write(p[written:])
		written += n
		if still++; n > 0 {
			still = 0
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded) || still == looks:
			return written, err
		case n > 0:
			c.slow.Add(1)
		}
	}
	return written, nil
}

// arm sets the deadline of the next look: its part of the stall limit, or, once the
// connection is closed, of its grace.
func (c *gatherConn) arm(to net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.listener.opts.StallTimeout
	if c.closing || c.ended {
		limit = min(limit, closeGrace)
	}
	return to.SetWriteDeadline(time.Now().Add(limit / looks))
}

// Close closes the connection. What waits to be written still is, for a moment; the
// call does not wait for it.
func (c *gatherConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil // net/http closes twice
	}
	c.closing = true
	if !c.flushing {
		return c.end()
	}
	c.room.Broadcast()
	// A write that is stuck gets no more than its grace, a reader none.
	return errors.Join(
		c.Conn.SetWriteDeadline(time.Now().Add(closeGrace/looks)),
		c.SetReadDeadline(longAgo),
	)
}

// end closes what is below. It is called with the lock, which it lets go meanwhile:
// TLS says goodbye through arm. It may be called twice.
func (c *gatherConn) end() error {
	first := c.left != nil
	if first {
		c.left()
		c.left = nil
	}
	// HTTP/2 is left out: a client may open a connection and wait with its calls.
	unserved := first && !c.gather && c.talked.Load() && !c.asked.Load()
	c.mu.Unlock()
	defer c.mu.Lock()
	if told := c.listener.opts.Unserved; unserved && told != nil {
		told(c.RemoteAddr())
	}
	return c.Conn.Close()
}

// SetDeadline sets the deadline of reads, and that of writes where it is kept.
func (c *gatherConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline sets the deadline of writes. A connection that gathers has the
// stall limit in its place: the deadline of one Write says nothing of bytes that
// are written when it has returned.
func (c *gatherConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gather {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// CloseWrite ends the sending side, where the connection can.
func (c *gatherConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
