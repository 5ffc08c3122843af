package transport

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/budget"
)

// What connections cost, in bytes. A test of package main compares it with the heap.
const (
	// connBytes is the base cost of a connection: goroutines and buffers. tlsBytes is that
	// of a TLS session after its handshake.
	connBytes = 32 << 10
	tlsBytes  = 20 << 10
	// coveredBytes is the part of the base cost that headers, bodies and frames use as
	// long as they are small.
	coveredBytes = 4 << 10
	// headerFactor and blockFactor are the cost of a byte of a header that is arriving, of
	// HTTP/1 and of HTTP/2: buffers double, and fields are copied out of them.
	headerFactor = 2
	blockFactor  = 3
	// requestBytes is the base cost of a request while its handler runs: the goroutine
	// with its stack, the stream of HTTP/2, the response buffer and the chain.
	requestBytes = 24 << 10
	// headerFieldBytes is the cost of a header field beside its name and value.
	headerFieldBytes = 100
	// maxConnHeaders bounds the header bytes that the running requests of one connection
	// refer to. connHeaderShare is the same as a part of the share of an anonymous caller.
	maxConnHeaders  = 4 << 20
	connHeaderShare = 4

	// bodyWait is how long a connection is not read while there is no memory for the body
	// bytes that it brings. After that it is closed.
	bodyWait  = 2 * time.Second
	bodyRetry = 10 * time.Millisecond
)

// connMemory is what a connection has reserved, and how far it makes progress.
type connMemory struct {
	budget.Reservation

	known    atomic.Bool  // it belongs to a principal
	requests atomic.Int32 // whose handlers run
	progress atomic.Int64 // time of the last progress, after the listener began
	headers  atomic.Int64 // header bytes of running requests
	arriving atomic.Int64 // header bytes that are arriving, or wait for a handler
	since    atomic.Int64 // when the header block that is arriving began, as progress; 0: none is

	// The reading goroutine's own.
	largest uint32 // frame that was received
	block   int64  // bytes reserved for the header block that is arriving
	last    frameHead
	waiting int32 // requests that wait for a handler to return

	// body is held to account for DATA that no handler has read. data is how many bytes were
	// received, credit how many the peer has been allowed beyond connWindow, since as many
	// were read or discarded, and unread how many are reserved.
	body                 sync.Mutex
	data, credit, unread int64

	// update is the WINDOW_UPDATE that is being written, and missing how many bytes of its
	// payload are still to come. Both are under the connection's lock.
	update, missing uint32
}

// errShort is the error of a connection for which there is no memory.
var errShort = errors.New("no memory for the connection")

// readHTTP1 accounts for bytes of HTTP/1 before net/http reads them. Bytes that arrive
// while no request is handled belong to a header.
func (m *connMemory) readHTTP1(n int) error {
	if m.requests.Load() > 0 {
		return nil
	}
	before := m.arriving.Add(int64(n)) - int64(n)
	more := min(before+int64(n), maxHeaderBytes+coveredBytes) - max(before, coveredBytes)
	return m.Grow(budget.Header, headerFactor*more)
}

// readHandshake accounts for bytes of a TLS handshake.
func (m *connMemory) readHandshake(n int) error {
	before := m.arriving.Add(int64(n)) - int64(n)
	return m.Grow(budget.Header, headerFactor*(before+int64(n)-max(before, coveredBytes)))
}

// endHandshake reserves the cost of the session in place of that of the handshake.
func (m *connMemory) endHandshake() error {
	m.arriving.Store(0)
	m.Shrink(budget.Header, m.Held(budget.Header))
	return m.Grow(budget.Connection, tlsBytes)
}

// begin notes that a handler runs for a request.
func (m *connMemory) begin(now time.Duration, http1 bool) {
	m.progress.Store(int64(now))
	m.requests.Add(1)
	if http1 {
		if n := m.arriving.Swap(0); n > coveredBytes {
			m.Shrink(budget.Header, m.Held(budget.Header)) // the request reserves its own
		}
	}
}

// end notes that a handler has returned.
func (m *connMemory) end(now time.Duration) {
	m.progress.Store(int64(now))
	m.requests.Add(-1)
}

// frame accounts for a frame of HTTP/2 whose header was received.
func (m *connMemory) frame(h frameHead, maxStreams int32) error {
	m.last = h
	var err error
	if h.length > max(m.largest, coveredBytes) { // net/http keeps a buffer of that size
		err = m.Grow(budget.Connection, int64(h.length-max(m.largest, coveredBytes)))
		m.largest = h.length
	}
	switch h.kind {
	case frameData:
		m.body.Lock()
		m.data += int64(h.length)
		m.body.Unlock()
	case frameHeaders:
		err = errors.Join(err, m.queue(maxStreams))
	}
	return err
}

// queue accounts for requests that net/http keeps until a handler returns. A client makes
// it do so by resetting streams whose handlers run on.
func (m *connMemory) queue(maxStreams int32) error {
	running := m.requests.Load()
	switch {
	case maxStreams <= 0:
		return nil
	case running < maxStreams:
		m.Shrink(budget.Header, int64(m.waiting)*maxHeaderBytes)
		m.waiting = 0
		return nil
	}
	if err := m.Grow(budget.Header, maxHeaderBytes); err != nil {
		return err
	}
	m.waiting++
	return nil
}

// received accounts for n bytes after all frames in them were passed to frame. A header
// block that is not complete is reserved for by its length, and has to be complete within
// the header timeout.
func (m *connMemory) received(n int, complete bool, now time.Duration) error {
	header := m.last.kind == frameHeaders || m.last.kind == frameContinuation
	if header && (!m.last.has(flagEndHeaders) || !complete) {
		if m.since.Load() == 0 {
			m.since.Store(max(int64(now), 1))
		}
		more := min(blockFactor*int64(n), blockFactor*maxHeaderBytes-m.block)
		if err := m.Grow(budget.Header, more); err != nil {
			return err
		}
		m.block += max(more, 0)
	} else if m.since.Load() != 0 {
		m.since.Store(0)
		m.Shrink(budget.Header, m.block)
		m.block = 0
	}
	return nil
}

// reserveBody brings the reservation for DATA that no handler has read up to date.
func (m *connMemory) reserveBody() error {
	m.body.Lock()
	defer m.body.Unlock()
	want := max(m.data-max(m.credit, 0)-coveredBytes, 0)
	if want < m.unread {
		m.Shrink(budget.Body, m.unread-want)
	} else if err := m.Grow(budget.Body, want-m.unread); err != nil {
		return err
	}
	m.unread = want
	return nil
}

// sent looks for WINDOW_UPDATE frames of the connection in what is written. p begins with
// the payload of a frame of which some bytes may be missing.
func (m *connMemory) sent(h frameHead, p []byte) {
	if h.kind == frameWindow && h.stream == 0 {
		m.missing, m.update = 4, 0
	}
	for ; m.missing > 0 && len(p) > 0; p = p[1:] {
		m.update = m.update<<8 | uint32(p[0])
		if m.missing--; m.missing == 0 {
			m.credited(int64(m.update))
		}
	}
}

// credited notes that n bytes of DATA were read or discarded.
func (m *connMemory) credited(n int64) {
	m.body.Lock()
	m.credit += n
	m.body.Unlock()
	_ = m.reserveBody() // it can fail for what arrives only, which the reader waits for
}

// read returns how many bytes of DATA were read or discarded.
func (m *connMemory) read() int64 {
	m.body.Lock()
	defer m.body.Unlock()
	return m.credit
}

// account passes bytes that were read to the ledger, before net/http reads them.
func (c *gatherConn) account(n int) error {
	m := &c.memory
	if m.Budget() == nil {
		return nil
	}
	if c.budget == nil {
		if len(c.seen) < len(preface) {
			return nil
		}
		return m.readHTTP1(n)
	}
	if c.budget.short != nil {
		return c.budget.short
	}
	if err := m.received(n, c.budget.in.skip == 0, c.listener.now()); err != nil {
		return err
	}
	err := m.reserveBody()
	for waited := time.Duration(0); err != nil && waited < bodyWait && !c.isClosing(); waited += bodyRetry {
		time.Sleep(bodyRetry)
		err = m.reserveBody()
	}
	return err
}

// capacity returns how many bytes may wait to be written if more come. What is beyond
// keptBytes is reserved, twice: as much may be written at the time. It is called with the
// lock.
func (c *gatherConn) capacity(more int) int {
	want := min(len(c.out)+more, gatherBytes)
	if most := int(c.kept / 2); want <= max(most, keptBytes) || want <= most {
		return want
	}
	if n := int64(2*want) - c.kept; c.memory.Grow(budget.Response, n) == nil {
		c.kept += n
	}
	return max(int(c.kept/2), keptBytes)
}

// flushed notes that a batch was written. It is called with the lock.
func (c *gatherConn) flushed() {
	if len(c.out) == 0 && c.kept > 0 {
		c.memory.Shrink(budget.Response, c.kept)
		c.kept = 0
	}
	if b := c.budget; b != nil {
		if moved := b.dataSent.Load() + c.memory.read(); moved != c.moved {
			c.moved = moved
			c.memory.progress.Store(int64(c.listener.now()))
		}
	}
}

func (c *gatherConn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing || c.ended || c.err != nil
}

// abort closes the connection, and tells a peer of HTTP/2 why.
func (c *gatherConn) abort(cause Cause) {
	if !c.aborted.CompareAndSwap(false, true) {
		return
	}
	c.listener.overdrawn(c, cause)
	c.mu.Lock()
	if c.gather && !c.closing {
		c.ended = true
		c.goodbye = farewell(cause)
		c.finish(nil)
		c.room.Broadcast()
	}
	c.mu.Unlock()
	_ = c.Close() // it fails if the connection is gone already
	c.memory.Release()
}

// refuseShort closes a connection whose bytes there is no memory for. Reading ends.
func (c *gatherConn) refuseShort() error {
	if !c.gather && c.state.conn == nil && c.Conn.SetDeadline(time.Now().Add(closeGrace)) == nil { // gather is written by look only
		_, _ = io.WriteString(c.Conn, overloadedHTTP1)
		c.memory.Release()
		if c.CloseWrite() == nil { // a connection that is closed over unread bytes takes back what it sent
			_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, drainBytes))
		}
	}
	c.abort(CauseMemory)
	return net.ErrClosed
}

// overloadedHTTP1 is the response to a request whose header there is no memory for.
const overloadedHTTP1 = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 18\r\n\r\nserver overloaded\n"

// headerBytes returns the memory that a header takes.
func headerBytes(header http.Header) (n int64) {
	for name, values := range header {
		for _, value := range values {
			n += int64(len(name)+len(value)) + headerFieldBytes
		}
	}
	return n
}

// reserve reserves the base cost of the request and its header.
func (x *Exchange) reserve(b *budget.Budget, r *http.Request) error {
	n := headerBytes(r.Header) + int64(len(r.RequestURI))
	if x.conn != nil {
		x.headers = n
		most := min(maxConnHeaders, b.CallerShare(budget.Anonymous)/connHeaderShare)
		if x.conn.memory.headers.Add(n) > most {
			return errShort
		}
	}
	if err := x.memory.Grow(budget.Request, requestBytes); err != nil {
		return err
	}
	return x.memory.Grow(budget.Header, n)
}

// Overloaded reports whether there is no memory for the request: it is to be refused.
func (x *Exchange) Overloaded() bool { return x.short }

// MoveTo makes the request draw on the account of its caller, and the connection too if
// it has none yet.
func (x *Exchange) MoveTo(class budget.Class, caller string) error {
	x.slot.Move(caller)
	if err := x.memory.Move(class, caller); err != nil {
		return err
	}
	if x.conn == nil || !x.conn.memory.known.CompareAndSwap(false, true) {
		return nil
	}
	if x.conn.memory.Move(class, caller) != nil {
		x.conn.memory.known.Store(false)
	}
	return nil
}
