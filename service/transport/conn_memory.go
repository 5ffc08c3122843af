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
	tlsBytes  = 14 << 10
	// ownConnBytes is the base cost of a connection of service/http2, and tableBytes what its first request adds: an HPACK
	// table, of which the entries can be so small that the table takes seven times its size of 4 KiB.
	ownConnBytes = 10 << 10
	tableBytes   = 12 << 10
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
	arriving      atomic.Int64 // bytes of an HTTP/1 header or a handshake that is incomplete or waits for a handler

	// Bytes reserved for a connection of service/http2. table, block and input are used by its reading goroutine, output is guarded
	// by the package.
	table  bool  // tableBytes
	block  int64 // for an incomplete header block
	input  int64 // for a large input buffer
	output int64 // for queued output

	bodyMu               sync.Mutex // guards the fields below
	unread, reservedBody int64      // received DATA that no handler has read, and the bytes reserved for it
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

// addUnread changes the number of unread bytes of DATA.
func (m *connMemory) addUnread(n int64) {
	m.bodyMu.Lock()
	defer m.bodyMu.Unlock()
	m.unread += n
}

// reserveBody updates the reservation for unread DATA.
func (m *connMemory) reserveBody() error {
	m.bodyMu.Lock()
	defer m.bodyMu.Unlock()
	return m.hold(budget.Body, &m.reservedBody, max(m.unread-includedBytes, 0))
}

// reserveInput reserves memory for n bytes of input of HTTP/1 before net/http reads them. service/http2 reserves its own.
func (c *serverConn) reserveInput(n int) error {
	if c.http2 || c.memory.Budget() == nil || len(c.start) < len(clientPreface) {
		return nil
	}
	return c.memory.readHTTP1(n)
}

// rejectNoMemory closes a connection after input for which there is no memory.
func (c *serverConn) rejectNoMemory() error {
	if !c.http2 && c.tls.conn == nil && // http2 is only written on this goroutine
		c.Conn.SetDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.WriteString(c.Conn, overloadedHTTP1)
		c.memory.Release()
		if c.CloseWrite() == nil { // see tlsState.reject
			_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, maxLingerBytes))
		}
	}
	c.abort(http2.CloseMemory)
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
