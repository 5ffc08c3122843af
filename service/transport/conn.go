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
	// readBuffer fits the frames of several small calls. Each connection has one.
	readBuffer = 4 << 10
	// maxPending bounds the bytes that wait to be written. Further writes block.
	maxPending = 64 << 10
	// maxIdleBuffer is the largest write buffer that an idle connection keeps.
	maxIdleBuffer = 8 << 10
	// lingerTimeout bounds the time for sending the last bytes of a connection and for reading the
	// rest of its input.
	lingerTimeout = time.Second
	// stallChecks is the number of progress checks of a blocked write per stall timeout.
	stallChecks = 4
	// maxLingerBytes bounds the input that is read and discarded before a connection is closed.
	maxLingerBytes = 1 << 20
)

// prefaceStart is the part of the client connection preface that is read before the protocol is
// known to be HTTP/2.
var (
	clientPreface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	prefaceStart  = clientPreface[:len("PRI * HTTP/2.0")]
)

// serverConn is one connection. Like any net.Conn it supports one reader and several concurrent
// writers. Writes of HTTP/2 are batched.
type serverConn struct {
	net.Conn

	listener      *Listener
	reader        *bufio.Reader // nil: nothing read yet
	start         []byte        // first bytes, up to the length of prefaceStart; for the reading goroutine
	tls           tlsState
	onClose       func()       // called once, on close
	budget        *frameBudget // nil: not HTTP/2
	windows       *sendWindows // nil: not HTTP/2; set before the first request
	hasInput      atomic.Bool  // input was received
	hasRequest    atomic.Bool  // a request reached the handler
	partialWrites atomic.Int64 // number of partial writes within the stall timeout
	peer          netip.Addr   // key of the peer in limits
	memory        connMemory
	slot          fair.Slot     // schedules the input among peers
	aborted       atomic.Bool   // closed by abort
	lastStream    atomic.Uint32 // the last stream that net/http received

	mu          sync.Mutex
	cond        sync.Cond // signaled when pending shrinks, on errors and on close
	http2       bool      // the connection is HTTP/2, and writes are batched
	pending     []byte    // bytes to write
	spare       []byte    // previous buffer, for reuse
	flushing    bool      // a goroutine is in flush
	closing     bool
	goingAway   bool   // a GOAWAY was queued or sent: further writes are discarded
	frameQueued bool   // a frame was queued
	goAway      []byte // GOAWAY to send after the current frame
	err         error  // error of a write; the connection is unusable
	reserved    int64  // bytes reserved for pending
	transferred int64  // DATA frames sent plus bytes read, as of the last flush
}

func newServerConn(c net.Conn, l *Listener) *serverConn {
	g := &serverConn{Conn: c, listener: l}
	if addr := c.RemoteAddr(); addr != nil {
		g.peer = peerOf(addr.String())
	}
	g.slot.Open(l.opts.Scheduler, g.peer.String())
	g.memory.progress.Store(int64(l.now()))
	g.cond.L = &g.mu
	return g
}

// Read reads from the connection. The first bytes select HTTP/2 or HTTP/1.
func (c *serverConn) Read(p []byte) (n int, err error) {
	if c.aborted.Load() {
		return 0, net.ErrClosed
	}
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.Conn, readBuffer)
	}
	n, err = c.fill(p)
	if err != nil && c.tls.conn != nil {
		c.tls.handshakeFailed(c.listener, err)
	}
	if n > 0 && len(c.start) < len(prefaceStart) {
		if raw := c.tls.raw; raw != nil && raw.memory.Swap(nil) != nil && c.memory.endHandshake() != nil {
			return 0, c.rejectNoMemory()
		}
		if err := c.detectProtocol(p[:n]); err != nil {
			c.tls.reject(c.listener, err)
			return 0, io.EOF // after any other error net/http would write a response
		}
	}
	if n > 0 && c.budget != nil {
		if reason := c.budget.received(p[:n]); reason != "" {
			c.closeWithGoAway(reason)
			return 0, net.ErrClosed
		}
	}
	if n > 0 && c.reserveInput(n) != nil {
		return 0, c.rejectNoMemory()
	}
	if c.budget != nil {
		c.lastStream.Store(c.budget.lastStream)
		if c.aborted.Load() { // possibly with an earlier last stream, so the client may repeat this request
			return 0, net.ErrClosed
		}
	}
	return n, err
}

// fill reads. Input that no handler waits for is passed on in the turn of the peer, so requests of
// one peer arrive no faster than they are handled.
func (c *serverConn) fill(p []byte) (int, error) {
	if c.reader.Buffered() > 0 {
		return c.reader.Read(p)
	}
	n, err := c.reader.Read(p)
	if c.budget != nil || c.memory.requests.Load() == 0 {
		c.slot.Acquire()
		c.slot.Release() // the end of handling the frames is not observable here
	}
	return n, err
}

// detectProtocol detects the protocol. It returns an error if the protocol contradicts ALPN.
func (c *serverConn) detectProtocol(p []byte) error {
	c.hasInput.Store(true)
	before := len(c.start)
	c.start = append(c.start, p[:min(len(p), len(prefaceStart)-before)]...)
	if !bytes.HasPrefix(prefaceStart, c.start) {
		c.start = prefaceStart // HTTP/1: stop comparing
		return c.tls.allows(false)
	}
	if len(c.start) < len(prefaceStart) {
		return nil
	}
	if err := c.tls.allows(true); err != nil {
		return err
	}
	c.mu.Lock()
	c.http2 = true
	if c.tls.raw != nil {
		c.tls.raw.owner.Store(c)
	}
	c.budget = newFrameBudget(c.listener.opts.Frames, before)
	c.windows = c.budget.windows
	c.memory.addCredit(firstConnWindow - connWindow)
	c.budget.memory, c.budget.maxStreams = &c.memory, int32(c.listener.opts.MaxConcurrentStreams)
	c.mu.Unlock()
	return nil
}

// closeWithGoAway closes a connection that exceeded a frame limit: it sends GOAWAY after the
// current frame and then lingers, because closing a socket with unread input resets the connection,
// and the client would not receive the GOAWAY.
func (c *serverConn) closeWithGoAway(reason CloseReason) {
	c.listener.reportClose(c, reason)
	c.mu.Lock()
	c.goingAway = true
	c.goAway = goAwayFor(reason, c.lastStream.Load())
	c.appendGoAway(nil)
	c.cond.Broadcast()
	_ = c.Conn.SetDeadline(time.Now().Add(lingerTimeout)) // on failure the connection is closed already
	timer := time.AfterFunc(lingerTimeout, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.goAway = nil
		c.cond.Broadcast()
	})
	for (c.flushing || c.goAway != nil) && c.err == nil && !c.closing {
		c.cond.Wait()
	}
	timer.Stop()
	c.mu.Unlock()
	if c.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, maxLingerBytes))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = net.ErrClosed
	}
}

// appendGoAway appends the rest of the current frame from p, and after a complete frame the GOAWAY.
// The caller holds c.mu.
func (c *serverConn) appendGoAway(p []byte) {
	n := 0
	for ; n < len(p) && !c.budget.out.atBoundary(); n++ {
		c.budget.sent(p[n : n+1])
	}
	if c.pending = append(c.pending, p[:n]...); c.budget.out.atBoundary() {
		if !c.frameQueued && n == 0 {
			c.pending = append(c.pending, emptySettings()...)
		}
		c.pending = append(c.pending, c.goAway...)
		c.goAway = nil
	}
	if !c.flushing && len(c.pending) > 0 {
		c.flushing = true
		go c.flush()
	}
}

// Write queues p for the flushing goroutine. An error of the connection is returned by a later
// Write.
func (c *serverConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.http2 {
		c.mu.Unlock()
		if n, err = c.Conn.Write(p); n > 0 {
			c.memory.progress.Store(int64(c.listener.now()))
		}
		c.mu.Lock()
		return n, err
	}
	for n < len(p) {
		for len(c.pending) >= c.capacity(len(p)-n) && c.err == nil && !c.closing && !c.goingAway {
			c.cond.Wait()
		}
		if c.err != nil {
			return n, c.err
		}
		if c.closing {
			return n, net.ErrClosed
		}
		if c.goingAway {
			// After an error net/http would close the connection before the GOAWAY is sent.
			if c.goAway != nil {
				c.appendGoAway(p[n:])
			}
			return len(p), nil
		}
		c.frameQueued = true
		size := min(c.capacity(len(p)-n)-len(c.pending), len(p)-n)
		c.pending = append(c.pending, p[n:n+size]...)
		if c.budget != nil {
			c.budget.sent(c.pending[len(c.pending)-size:])
		}
		n += size
		if !c.flushing {
			c.flushing = true
			go c.flush()
		}
	}
	return n, nil
}

// flush writes until nothing is pending. It yields once, so that other goroutines can add to the
// batch.
func (c *serverConn) flush() {
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) > 0 && c.err == nil {
		batch := c.pending
		c.pending, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		err := c.writeBatch(batch)
		c.mu.Lock()
		if c.err = err; cap(batch) <= maxIdleBuffer {
			c.spare = batch[:0]
		}
		c.afterFlush()
		c.cond.Broadcast()
	}
	if cap(c.pending) > maxIdleBuffer {
		c.pending = nil
	}
	c.flushing = false
	c.cond.Broadcast()
	if c.err != nil || c.closing {
		_ = c.closeConn() // the error of the write is the one that counts
	}
}

// writeBatch fails if no byte is written within the stall timeout.
func (c *serverConn) writeBatch(batch []byte) (err error) {
	if c.tls.raw != nil {
		_, err = c.Conn.Write(batch) // rawConn applies the stall timeout
	} else {
		_, err = c.writeChecked(c.Conn, batch)
	}
	return err
}

// writeChecked writes p and checks the progress several times per stall timeout. It fails after
// stallChecks checks in a row without progress.
func (c *serverConn) writeChecked(to net.Conn, p []byte) (written int, err error) {
	for stalled := 0; written < len(p); {
		if err := c.setCheckDeadline(to); err != nil {
			return written, err
		}
		n, err := to.Write(p[written:])
		written += n
		if stalled++; n > 0 {
			stalled = 0
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded) || stalled == stallChecks:
			return written, err
		case n > 0:
			c.partialWrites.Add(1)
		}
	}
	return written, nil
}

// setCheckDeadline sets the write deadline of the next progress check: a fraction of the stall
// timeout, or of lingerTimeout while the connection is closing.
func (c *serverConn) setCheckDeadline(to net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.listener.opts.StallTimeout
	if c.closing || c.goingAway {
		limit = min(limit, lingerTimeout)
	}
	return to.SetWriteDeadline(time.Now().Add(limit / stallChecks))
}

// Close closes the connection after pending bytes are written, for lingerTimeout at most. It does
// not wait for them.
func (c *serverConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil // net/http closes twice
	}
	c.closing = true
	if !c.flushing {
		return c.closeConn()
	}
	c.cond.Broadcast()
	// A blocked write gets lingerTimeout, a read none.
	return errors.Join(
		c.Conn.SetWriteDeadline(time.Now().Add(lingerTimeout/stallChecks)),
		c.SetReadDeadline(pastDeadline),
	)
}

// closeConn closes the underlying connection. The caller holds c.mu, which is released during the
// call, because TLS sends close_notify through setCheckDeadline. It may be called twice.
func (c *serverConn) closeConn() error {
	first := c.onClose != nil
	if first {
		c.onClose()
		c.onClose = nil
	}
	// HTTP/2 clients may open a connection before they have a request.
	noRequest := first && !c.http2 && c.hasInput.Load() && !c.hasRequest.Load()
	linger := first && c.http2 && c.aborted.Load() && c.err == nil
	c.mu.Unlock()
	defer c.mu.Lock()
	if report := c.listener.opts.OnNoRequest; noRequest && report != nil {
		report(c.RemoteAddr())
	}
	if linger {
		select {
		case c.listener.rejecting <- struct{}{}:
			go c.lingerAndClose()
			return nil
		default:
		}
	}
	return c.Conn.Close()
}

// lingerAndClose closes an aborted connection once the client has closed it or stops sending, see
// closeWithGoAway. Listener.rejecting bounds the number of calls.
func (c *serverConn) lingerAndClose() {
	defer func() { <-c.listener.rejecting }()
	defer func() { _ = c.Conn.Close() }()
	input := c.Conn
	if c.tls.raw != nil {
		input = c.tls.raw.Conn // without decryption
	}
	if c.Conn.SetDeadline(time.Now().Add(lingerTimeout)) == nil && c.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(input, maxLingerBytes))
	}
}

// SetDeadline sets the deadlines of reads and writes, see SetWriteDeadline.
func (c *serverConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline sets the write deadline of an HTTP/1 connection. HTTP/2 ignores it and applies
// the stall timeout: Write returns before its bytes are written.
func (c *serverConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http2 {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// CloseWrite shuts down the writing side, if the connection supports it.
func (c *serverConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
