package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/http2"
)

// readBuffer fits the frames of several small calls. Each connection has one.
const readBuffer = 4 << 10

// prefaceStart is the first line of the client connection preface.
var (
	clientPreface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	prefaceStart  = clientPreface[:len("PRI * HTTP/2.0")]
)

// serverConn is one connection. Like any net.Conn it supports one reader and several concurrent
// writers.
type serverConn struct {
	net.Conn

	listener   *Listener
	reader     *bufio.Reader // nil: nothing read yet
	start      []byte        // first bytes, up to the length of clientPreface; for the reading goroutine
	tls        tlsState
	onClose    func()                                  // called once, on close
	hasInput   atomic.Bool                             // input was received
	hasRequest atomic.Bool                             // a request reached the handler
	remote     string                                  // address of the peer
	peer       netip.Addr                              // key of the peer in limits
	key        string                                  // peer as text
	cancel     atomic.Pointer[context.CancelCauseFunc] // of the contexts of requests; nil: no age
	base       context.Context                         //nolint:containedctx // of requests, set by ConnContext; nil: unknown
	expires    time.Duration                           // when the connection reaches its age, as Listener.now; 0: never
	memory     connMemory
	slot       fair.Slot    // schedules the input among peers
	aborted    atomic.Bool  // closed by abort
	closing    atomic.Bool  // Close was called
	accepted   atomic.Int64 // number of writes over TLS of which the peer has accepted a part

	mu       sync.Mutex
	http2    bool          // the connection is HTTP/2
	foreign  string        // the protocol of a connection that is not HTTP, if known
	own      http2.Control // of an HTTP/2 connection of service/http2; nil: it is of net/http
	detached bool          // net/http will call Close, which must be ignored
	released bool          // net/http will report StateClosed, which must be ignored
}

func newServerConn(c net.Conn, l *Listener) *serverConn {
	g := &serverConn{Conn: c, listener: l}
	if addr := c.RemoteAddr(); addr != nil {
		g.remote = addr.String()
		g.peer = peerOf(g.remote)
	}
	g.key = g.peer.String()
	g.slot.Open(l.opts.Scheduler, g.key)
	now := l.now()
	g.memory.progress.Store(int64(now))
	if age := l.opts.newAge(); age > 0 {
		g.expires = now + age
	}
	return g
}

// peerKey is Peer for the address of a request, which may be that of the connection. c may be nil.
func (c *serverConn) peerKey(addr string) string {
	if c != nil && c.remote == addr {
		return c.key
	}
	return Peer(addr)
}

// Read reads from the connection. The first bytes select HTTP/2 or HTTP/1.
func (c *serverConn) Read(p []byte) (n int, err error) {
	if c.own != nil { // written by this goroutine
		return c.fill(p)
	}
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.Conn, readBuffer)
	}
	n, err = c.fill(p)
	if err != nil && c.tls.conn != nil {
		c.tls.handshakeFailed(c.listener, err)
	}
	if n > 0 && len(c.start) < len(clientPreface) {
		if raw := c.tls.raw; raw != nil && raw.handshake.Swap(nil) != nil && c.memory.endHandshake() != nil {
			return 0, c.rejectNoMemory()
		}
		if err := c.detectProtocol(p[:n]); err != nil {
			if c.tls.conn != nil {
				c.tls.reject(c.listener, err)
			}
			c.reader.Reset(bytes.NewReader(nil)) // net/http reads again
			return 0, io.EOF                     // after any other error net/http would write a response
		}
	}
	if n > 0 && c.reserveInput(n) != nil {
		return 0, c.rejectNoMemory()
	}
	return n, err
}

// fill reads. Input that no handler waits for is passed on in the turn of the peer, so requests of
// one peer arrive no faster than they are handled.
func (c *serverConn) fill(p []byte) (int, error) {
	var n int
	var err error
	switch {
	case c.reader != nil && c.reader.Buffered() > 0:
		return c.reader.Read(p)
	case c.own != nil: // it has a buffer
		c.reader = nil
		n, err = c.Conn.Read(p)
	default:
		n, err = c.reader.Read(p)
	}
	if c.http2 || c.memory.requests.Load() == 0 {
		c.takeTurn()
	}
	return n, err
}

// takeTurn waits for the turn of the peer.
func (c *serverConn) takeTurn() {
	c.slot.Acquire()
	c.slot.Release() // the end of handling the frames is not observable here
}

// errNotHTTP is the error of a connection that is neither HTTP/1 nor HTTP/2.
var errNotHTTP = errors.New("neither a request line nor the HTTP/2 connection preface")

// detectProtocol detects the protocol. It returns an error if the protocol contradicts ALPN, or if the first line has
// no HTTP version: as an invalid preface it ends the connection without a response (RFC 9113, section 3.4).
func (c *serverConn) detectProtocol(p []byte) error {
	c.hasInput.Store(true)
	before := len(c.start)
	c.start = append(c.start, p[:min(len(p), len(clientPreface)-before)]...)
	switch {
	case bytes.HasPrefix(clientPreface, c.start):
		if len(c.start) < len(clientPreface) {
			return nil
		}
	case bytes.HasPrefix(c.start, prefaceStart): // net/http would pass it to the handler as a request with the method PRI
		return errNotHTTP
	default:
		c.start = clientPreface // HTTP/1: stop comparing
		if foreign := foreignProtocol(p); before == 0 && foreign != "" {
			c.mu.Lock()
			c.foreign = foreign
			c.mu.Unlock()
		}
		if before == 0 && c.isNotHTTP(p) {
			return errNotHTTP
		}
		return c.tls.allows(false)
	}
	if err := c.tls.allows(true); err != nil {
		return err
	}
	if c.tls.raw != nil {
		c.tls.raw.owner.Store(c)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http2 = true
	return nil
}

// isNotHTTP reports whether the first line, which starts with p, is text without an HTTP version.
func (c *serverConn) isNotHTTP(p []byte) bool {
	rest, _ := c.reader.Peek(c.reader.Buffered()) // net/http reads no more than the preface at first
	line, _, whole := bytes.Cut(slices.Concat(p, rest), []byte("\n"))
	return whole && p[0] >= 'A' && p[0] <= 'z' && !bytes.Contains(line, []byte("HTTP/"))
}

// foreignProtocol returns the protocol of a connection that starts with p, if it is a known one other than HTTP.
func foreignProtocol(p []byte) string {
	switch {
	case bytes.HasPrefix(p, []byte("PROXY ")), bytes.HasPrefix(p, []byte("\r\n\r\n\x00\r\nQUIT\n")):
		return "PROXY protocol"
	case bytes.HasPrefix(p, []byte("\x16\x03")):
		return "TLS"
	}
	return ""
}
