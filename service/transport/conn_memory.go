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
	"github.com/yourorg/userservice/service/http2"
)

// Memory costs of connections, in bytes. A test of package main compares them with the heap.
const (
	// connBytes is the base cost of a connection (goroutines and buffers), tlsBytes the cost of a
	// TLS session after its handshake.
	connBytes = 32 << 10
	tlsBytes  = 20 << 10
	// ownConnBytes is the base cost of a connection of service/http2.
	ownConnBytes = 12 << 10
	// includedBytes is the part of the base cost that covers small headers, bodies and frames.
	includedBytes = 4 << 10
	// headerFactor and blockFactor are the memory per byte of an incomplete header in HTTP/1 and
	// HTTP/2: buffers double, and fields are copied.
	headerFactor = 2
	blockFactor  = 3
	// requestBytes is the base cost of a running request: goroutine and stack, HTTP/2 stream,
	// response buffer, middleware.
	requestBytes = 24 << 10
	// headerFieldBytes is the overhead per header field.
	headerFieldBytes = 100
	// maxConnHeaders bounds the header bytes of the running requests of a connection, also to
	// 1/connHeaderShare of the share of an anonymous caller.
	maxConnHeaders  = 4 << 20
	connHeaderShare = 4

	// bodyMemoryTimeout is how long reading pauses while there is no memory for body bytes. The
	// connection is closed afterwards.
	bodyMemoryTimeout = 2 * time.Second
	bodyMemoryRetry   = 10 * time.Millisecond
)

// connMemory is the memory reservation of a connection, with the time of its last progress.
type connMemory struct {
	budget.Reservation

	authenticated atomic.Bool  // moved to the account of a principal
	requests      atomic.Int32 // running handlers
	progress      atomic.Int64 // time of the last progress, see Listener.now
	headers       atomic.Int64 // header bytes of running requests
	arriving      atomic.Int64 // bytes of a header or handshake that is incomplete or waits for a handler
	headerStart   atomic.Int64 // start of the incomplete header block, see Listener.now; 0: none

	// Used by the reading goroutine only.
	largest uint32 // largest frame received
	block   int64  // bytes reserved for the incomplete header block
	last    frameHeader
	input   int64 // bytes reserved for a large input buffer of service/http2
	waiting int32 // requests waiting for a handler to return

	// bodyMu guards the accounting of DATA: bytes received, bytes credited to the peer beyond
	// connWindow (as many were read or discarded), and bytes reserved for unread DATA.
	bodyMu                           sync.Mutex
	received, credited, reservedData int64

	// increment is the payload of the WINDOW_UPDATE that is being written, incrementLeft the number
	// of its bytes still to come. Both are guarded by serverConn.mu.
	increment, incrementLeft uint32

	output int64 // bytes reserved for queued output of service/http2, which guards it
}

var errNoMemory = errors.New("no memory for the connection")

// readHTTP1 reserves memory for input of HTTP/1. Input is part of a header unless a handler is
// running.
func (m *connMemory) readHTTP1(n int) error {
	if m.requests.Load() > 0 {
		return nil
	}
	before := m.arriving.Add(int64(n)) - int64(n)
	more := min(before+int64(n), maxHeaderBytes+includedBytes) - max(before, includedBytes)
	return m.Grow(budget.Header, headerFactor*more)
}

// readHandshake reserves memory for input of a TLS handshake.
func (m *connMemory) readHandshake(n int) error {
	before := m.arriving.Add(int64(n)) - int64(n)
	return m.Grow(budget.Header, headerFactor*(before+int64(n)-max(before, includedBytes)))
}

// endHandshake replaces the reservation of the handshake by that of the session.
func (m *connMemory) endHandshake() error {
	m.arriving.Store(0)
	m.Shrink(budget.Header, m.Held(budget.Header))
	return m.Grow(budget.Connection, tlsBytes)
}

// beginRequest records that a handler starts.
func (m *connMemory) beginRequest(now time.Duration, http1 bool) {
	m.progress.Store(int64(now))
	m.requests.Add(1)
	if http1 {
		if n := m.arriving.Swap(0); n > includedBytes {
			m.Shrink(budget.Header, m.Held(budget.Header)) // replaced by the reservation of the request
		}
	}
}

// endRequest records that a handler returned.
func (m *connMemory) endRequest(now time.Duration) {
	m.progress.Store(int64(now))
	m.requests.Add(-1)
}

// frame reserves memory for a received HTTP/2 frame.
func (m *connMemory) frame(h frameHeader, maxStreams int32) error {
	m.last = h
	var err error
	if h.length > max(m.largest, includedBytes) { // net/http keeps a buffer of the largest frame size
		err = m.Grow(budget.Connection, int64(h.length-max(m.largest, includedBytes)))
		m.largest = h.length
	}
	switch h.kind {
	case frameData:
		m.bodyMu.Lock()
		m.received += int64(h.length)
		m.bodyMu.Unlock()
	case frameHeaders:
		err = errors.Join(err, m.queue(maxStreams))
	}
	return err
}

// queue reserves memory for requests beyond maxStreams, which net/http queues until a handler
// returns. Clients cause this by resetting streams whose handlers are still running.
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

// headerBlock updates the reservation of the header block after n bytes of input, whose frames were
// passed to frame. The start time of an incomplete block is recorded for the header timeout.
func (m *connMemory) headerBlock(n int, complete bool, now time.Duration) error {
	header := m.last.kind == frameHeaders || m.last.kind == frameContinuation
	if header && (!m.last.has(flagEndHeaders) || !complete) {
		if m.headerStart.Load() == 0 {
			m.headerStart.Store(max(int64(now), 1))
		}
		more := min(blockFactor*int64(n), blockFactor*maxHeaderBytes-m.block)
		if err := m.Grow(budget.Header, more); err != nil {
			return err
		}
		m.block += max(more, 0)
	} else if m.headerStart.Load() != 0 {
		m.headerStart.Store(0)
		m.Shrink(budget.Header, m.block)
		m.block = 0
	}
	return nil
}

// reserveBody updates the reservation for unread DATA.
func (m *connMemory) reserveBody() error {
	m.bodyMu.Lock()
	defer m.bodyMu.Unlock()
	want := max(m.received-max(m.credited, 0)-includedBytes, 0)
	if want < m.reservedData {
		m.Shrink(budget.Body, m.reservedData-want)
	} else if err := m.Grow(budget.Body, want-m.reservedData); err != nil {
		return err
	}
	m.reservedData = want
	return nil
}

// sent scans output for WINDOW_UPDATE frames of the connection. p starts with the payload of frame
// h, or with the rest of the previous payload.
func (m *connMemory) sent(h frameHeader, p []byte) {
	if h.kind == frameWindowUpdate && h.stream == 0 {
		m.incrementLeft, m.increment = 4, 0
	}
	for ; m.incrementLeft > 0 && len(p) > 0; p = p[1:] {
		m.increment = m.increment<<8 | uint32(p[0])
		if m.incrementLeft--; m.incrementLeft == 0 {
			m.addCredit(int64(m.increment))
		}
	}
}

// addCredit records that n bytes of DATA were read or discarded.
func (m *connMemory) addCredit(n int64) {
	m.bodyMu.Lock()
	m.credited += n
	m.bodyMu.Unlock()
	_ = m.reserveBody() // it only fails for new input, for which the reader waits
}

// consumed returns the number of DATA bytes that were read or discarded.
func (m *connMemory) consumed() int64 {
	m.bodyMu.Lock()
	defer m.bodyMu.Unlock()
	return m.credited
}

// reserveInput reserves memory for n bytes of input before net/http reads them.
func (c *serverConn) reserveInput(n int) error {
	m := &c.memory
	if m.Budget() == nil {
		return nil
	}
	if c.budget == nil {
		if len(c.start) < len(prefaceStart) {
			return nil
		}
		return m.readHTTP1(n)
	}
	if c.budget.memoryErr != nil {
		return c.budget.memoryErr
	}
	if err := m.headerBlock(n, c.budget.in.skip == 0, c.listener.now()); err != nil {
		return err
	}
	err := m.reserveBody()
	for waited := time.Duration(0); err != nil && waited < bodyMemoryTimeout && !c.isClosing(); waited += bodyMemoryRetry {
		time.Sleep(bodyMemoryRetry)
		err = m.reserveBody()
	}
	return err
}

// capacity returns the allowed number of pending bytes for a write of more bytes. Above
// maxIdleBuffer it is reserved twice, because an equal number of bytes may be in flush. The caller
// holds c.mu.
func (c *serverConn) capacity(more int) int {
	want := min(len(c.pending)+more, maxPending)
	if most := int(c.reserved / 2); want <= max(most, maxIdleBuffer) || want <= most {
		return want
	}
	if n := int64(2*want) - c.reserved; c.memory.Grow(budget.Response, n) == nil {
		c.reserved += n
	}
	return max(int(c.reserved/2), maxIdleBuffer)
}

// afterFlush updates the reservation and the progress after a write. The caller holds c.mu.
func (c *serverConn) afterFlush() {
	if len(c.pending) == 0 && c.reserved > 0 {
		c.memory.Shrink(budget.Response, c.reserved)
		c.reserved = 0
	}
	if b := c.budget; b != nil {
		if transferred := b.dataSent.Load() + c.memory.consumed(); transferred != c.transferred {
			c.transferred = transferred
			c.memory.progress.Store(int64(c.listener.now()))
		}
	}
}

func (c *serverConn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing || c.goingAway || c.err != nil
}

// abort closes the connection. HTTP/2 clients receive a GOAWAY.
func (c *serverConn) abort(reason CloseReason) {
	if !c.aborted.CompareAndSwap(false, true) {
		return
	}
	c.mu.Lock()
	if own := c.own; own != nil {
		c.mu.Unlock()
		own.End(http2.CloseReason(reason)) // it sends the GOAWAY, reports the reason and closes the connection
		c.memory.Release()
		return
	}
	c.mu.Unlock()
	c.listener.reportClose(c, reason)
	c.mu.Lock()
	if c.http2 && !c.closing {
		c.goingAway = true
		c.goAway = goAwayFor(reason, c.lastStream.Load())
		c.appendGoAway(nil)
		c.cond.Broadcast()
	}
	c.mu.Unlock()
	_ = c.Close() // the error is irrelevant, the connection may be closed already
	c.memory.Release()
}

// rejectNoMemory closes a connection after input for which there is no memory.
func (c *serverConn) rejectNoMemory() error {
	if !c.http2 && c.tls.conn == nil && // http2 is only written on this goroutine
		c.Conn.SetDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.WriteString(c.Conn, overloadedHTTP1)
		c.memory.Release()
		if c.CloseWrite() == nil { // see closeWithGoAway
			_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, maxLingerBytes))
		}
	}
	c.abort(CloseMemory)
	return net.ErrClosed
}

// overloadedHTTP1 is the response to a request without memory for its header.
const overloadedHTTP1 = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 18\r\n\r\nserver overloaded\n"

// headerBytes returns the memory size of a header.
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
			return errNoMemory
		}
	}
	if err := x.memory.Grow(budget.Request, requestBytes); err != nil {
		return err
	}
	return x.memory.Grow(budget.Header, n)
}

// Overloaded reports whether there is no memory for the request. The caller must reject it.
func (x *Exchange) Overloaded() bool { return x.overloaded }

// MoveTo moves the request to the account of its authenticated caller, and with the first such
// request the connection.
func (x *Exchange) MoveTo(class budget.Class, caller string) error {
	x.caller = caller
	x.slot.Move(caller)
	if err := x.memory.Move(class, caller); err != nil {
		return err
	}
	if x.conn == nil || !x.conn.memory.authenticated.CompareAndSwap(false, true) {
		return nil
	}
	if x.conn.memory.Move(class, caller) != nil {
		x.conn.memory.authenticated.Store(false)
	}
	return nil
}
