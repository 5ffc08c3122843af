package transport

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
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
)

// preface is how a client begins HTTP/2.
var preface = []byte("PRI * HTTP/2.0")

// Gather returns a listener whose HTTP/2 connections read and write in larger steps
// than net/http does, which makes a system call for each frame, and for reading two.
// What is written is gathered while other goroutines have their turn, and then
// written at once. Connections that do not begin as HTTP/2 does are left as they are.
//
// A connection that takes no byte for the stall limit is closed.
func Gather(l net.Listener, stall time.Duration) net.Listener {
	return &gatherListener{Listener: l, stall: stall}
}

type gatherListener struct {
	net.Listener

	stall time.Duration
}

// Accept waits for a connection.
func (l *gatherListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newGatherConn(c, l.stall), nil
}

// gatherConn is one connection. As any net.Conn it is safe for one reader and
// several writers.
type gatherConn struct {
	net.Conn

	reader *bufio.Reader
	seen   []byte // of the preface; the reader's own
	stall  time.Duration

	mu       sync.Mutex
	room     sync.Cond // told when there is room, or an error
	gather   bool      // it is HTTP/2
	out      []byte    // what waits to be written
	spare    []byte    // what was written before, to be used again
	flushing bool      // a goroutine writes
	closing  bool
	err      error // of a write; the connection is of no use any more
}

func newGatherConn(c net.Conn, stall time.Duration) *gatherConn {
	g := &gatherConn{Conn: c, reader: bufio.NewReaderSize(c, readBuffer), stall: stall}
	g.room.L = &g.mu
	return g
}

// Read reads what has come. The first bytes tell HTTP/2 from HTTP/1.
func (c *gatherConn) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	if len(c.seen) < len(preface) && n > 0 {
		c.look(p[:n])
	}
	return n, err
}

func (c *gatherConn) look(p []byte) {
	c.seen = append(c.seen, p[:min(len(p), len(preface)-len(c.seen))]...)
	if !bytes.HasPrefix(preface, c.seen) {
		c.seen = preface // it is something else: look no more
		return
	}
	if len(c.seen) == len(preface) {
		c.mu.Lock()
		c.gather = true
		c.mu.Unlock()
	}
}

// Write takes the bytes to be written soon. An error of theirs comes with a later
// Write.
func (c *gatherConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gather {
		c.mu.Unlock()
		n, err = c.Conn.Write(p)
		c.mu.Lock()
		return n, err
	}
	for n < len(p) {
		for len(c.out) >= gatherBytes && c.err == nil && !c.closing {
			c.room.Wait()
		}
		if c.err != nil {
			return n, c.err
		}
		if c.closing {
			return n, net.ErrClosed
		}
		more := min(gatherBytes-len(c.out), len(p)-n)
		c.out = append(c.out, p[n:n+more]...)
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
		c.room.Broadcast()
	}
	if cap(c.out) > keptBytes {
		c.out = nil
	}
	c.flushing = false
	if c.err != nil || c.closing {
		_ = c.Conn.Close() // the error of the write is the one that counts
	}
}

// writeAll writes the batch. It fails if no byte at all is taken for the limit.
func (c *gatherConn) writeAll(batch []byte) error {
	for len(batch) > 0 {
		if err := c.arm(); err != nil {
			return err
		}
		n, err := c.Conn.Write(batch)
		batch = batch[n:]
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
	}
	return nil
}

// arm sets the deadline of the next write: the stall limit, or, once the connection
// is closed, its grace.
func (c *gatherConn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.stall
	if c.closing {
		limit = min(limit, closeGrace)
	}
	return c.Conn.SetWriteDeadline(time.Now().Add(limit))
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
		return c.Conn.Close()
	}
	c.room.Broadcast()
	// A write that is stuck gets no more than its grace, a reader none.
	return errors.Join(
		c.Conn.SetWriteDeadline(time.Now().Add(closeGrace)),
		c.SetReadDeadline(longAgo),
	)
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
