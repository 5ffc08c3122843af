package http2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

const (
	// lingerTimeout bounds the time for sending the last bytes of a connection and for reading the rest of its
	// input: closing a socket with unread input resets the connection, and the client would not receive them.
	lingerTimeout = time.Second
	// maxLingerBytes bounds the input that is read and discarded before a connection is closed.
	maxLingerBytes = 1 << 20
)

// conn is a connection. Fields without a comment are set before the first frame.
type conn struct {
	srv        *Server
	net        net.Conn
	handler    http.Handler
	ctx        context.Context //nolint:containedctx // parent of the contexts of all requests
	cancel     context.CancelFunc
	remoteAddr string
	tlsState   *tls.ConnectionState // nil: no TLS
	hooks      Hooks
	opened     monotonic
	maxAge     time.Duration // 0: none

	// The reading goroutine owns these.
	in          input
	decoder     *hpack.Decoder
	block       headerBlock
	budget      frameBudget
	sawSettings bool
	received    bool // body bytes were received since the last read

	headerSince atomic.Int64 // start of an incomplete header block; 0: none
	lastRead    atomic.Int64

	mu sync.Mutex // guards the fields below

	streams   map[uint32]*stream
	closed    closedStreams
	maxStream uint32  // largest id that the client opened
	started   uint32  // largest id with a handler
	pending   *stream // its handler starts when its request is complete, or the reader blocks
	running   int     // handlers
	queue     []*stream
	idleSince monotonic // -1: not idle

	recvWindow, recvCredit int64

	sendWindow, sendReserved int64
	peerInitial              int64
	peerMaxFrame             uint32
	blocked                  []*stream // streams that wait for the connection
	full                     bool      // some of them wait for room in the output

	encoder     *hpack.Encoder
	out         []byte // queued output
	control     int    // bytes of control frames in out
	allowed     int    // bytes of output that the meter allows beyond minQueued
	writing     bool
	kickDue     bool      // a caller of TryWrite will call Kick
	writeSince  monotonic // start of a blocked write; 0: none
	writes      int64     // partial writes
	transferred int64     // DATA frames sent as of the last Meter.Transferred
	changed     sync.Cond // signaled when output was written, and at the end

	graceful   bool // GOAWAY was sent with the largest stream id
	goAwayPing bool // the ping after it was not acknowledged
	goAwaySent bool // the final GOAWAY was sent
	goAwayLast uint32

	ended      bool
	endedBy    error     // why the server ended the connection
	pingSent   monotonic // unacknowledged ping; 0: none
	timer      *time.Timer
	shutdownAt monotonic // time of the final GOAWAY
	timerAt    monotonic // when the timer runs; 0: not armed
}

// serve serves the connection until it ends.
func (c *conn) serve(readPreface bool) {
	c.mu.Lock()
	c.srv.connState(c, http.StateActive) // as in net/http: a connection without requests is idle, not new
	c.setIdle()
	c.appendSettings()
	c.kick()
	c.arm(c.srv.headerTimeout)
	c.mu.Unlock()
	c.headerSince.Store(int64(c.srv.now()))
	err := c.checkTLS()
	if err == nil && readPreface {
		err = c.readPreface()
	}
	if err == nil {
		err = c.readFrames()
	}
	c.end(err)
	c.linger()
	c.in.release()
}

// setIdle records that the connection has no streams. c.mu is held, or the connection is new.
func (c *conn) setIdle() {
	c.idleSince = c.srv.now()
	c.srv.connState(c, http.StateIdle)
}

// setActive records that the connection has a stream. c.mu is held.
func (c *conn) setActive() {
	c.idleSince = -1
	c.srv.connState(c, http.StateActive)
	c.arm(c.srv.tick)
}

// lastStreamClosed is called when no stream is open. The handlers of streams that were reset may still run. c.mu is held.
func (c *conn) lastStreamClosed() {
	switch {
	case c.ended:
	case c.goAwaySent:
		c.stopReading(nil)
	case c.running == 0:
		c.setIdle()
	}
}

// end ends the connection because of err. Errors of this package are sent to the client.
func (c *conn) end(err error) {
	c.mu.Lock()
	if c.endedBy != nil {
		err = c.endedBy
	}
	c.ended = true
	c.sendGoAwayFor(err)
	for _, st := range c.streams {
		c.closeStream(st, errConnClosed, closedByServer)
	}
	c.kick() // the end of the last response may not be written yet
	c.changed.Broadcast()
	c.timer.Stop()
	c.mu.Unlock()
	c.cancel()
	if limit := (limitError{}); errors.As(err, &limit) && c.hooks.OnClose != nil {
		c.hooks.OnClose(limit.reason)
	}
}

// linger sends the queued output and reads the rest of the input, within lingerTimeout.
func (c *conn) linger() {
	deadline := time.Now().Add(lingerTimeout)
	stop := time.AfterFunc(lingerTimeout, func() { _ = c.net.Close() })
	defer stop.Stop()
	c.mu.Lock()
	for c.writing {
		c.changed.Wait()
	}
	sent := c.goAwaySent || c.endedBy != nil
	c.mu.Unlock()
	if !sent || c.net.SetReadDeadline(deadline) != nil || closeWrite(c.net) != nil {
		return
	}
	buf := getInput(smallInput)
	for n := 0; n < maxLingerBytes; {
		m, err := c.net.Read(*buf)
		if n += m; err != nil {
			break
		}
	}
	smallInputs.Put(buf)
}

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// stopReading ends the connection: the reading goroutine returns. reason is nil after a graceful shutdown. c.mu is
// held.
func (c *conn) stopReading(reason error) {
	if c.ended {
		return
	}
	c.ended = true
	if reason != nil {
		c.endedBy = reason
	}
	c.changed.Broadcast()
	_ = c.net.SetReadDeadline(time.Unix(1, 0)) // fails only if the connection is closed
}

// End ends the connection because of a limit.
func (c *conn) End(reason CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopReading(limitError{reason})
}

// abort closes the connection without a GOAWAY. c.mu is held.
func (c *conn) abort() {
	c.ended = true
	c.changed.Broadcast()
	_ = c.net.Close() // the reading goroutine returns
}

// interruptible reports whether a write can continue after a deadline. That of crypto/tls cannot.
func (c *conn) interruptible() bool {
	_, ok := c.net.(*tls.Conn)
	return !ok
}
