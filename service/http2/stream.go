package http2

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// stream is a request and its response (section 5.1). One allocation holds most of it. Fields without a comment
// are set before the handler starts.
type stream struct {
	// TryWrite needs these, which are two cache lines with the first fields of the response writer.
	conn      *conn
	sendDelta int64 // window beyond conn.peerInitial; this and the next ones are guarded by conn.mu
	reserved  int64
	progress  int64
	err       error
	id        uint32
	w         responseWriter

	req      *http.Request
	handler  http.Handler
	ctx      requestContext // canceled with the stream
	cancel   context.CancelFunc
	url      url.URL
	body     requestBody
	declared int64 // Content-Length of the request; -1: unknown

	// The fields below are guarded by conn.mu.

	started    bool // the handler was started, or is queued
	queued     bool // in conn.queue
	headerSize int64
	recvClosed bool      // END_STREAM was received
	closed     bool      // not in conn.streams
	cond       sync.Cond // signaled on every change that a read or write can wait for

	// Receiving, see flow.go.
	unread      []byte // received body bytes, from unreadFrom
	unreadFrom  int
	received    int64
	recvWindow  int64
	recvCredit  int64
	bodyClosed  bool // further bytes are discarded
	bodyDropped bool // bytes were discarded: reads must not end with io.EOF
	trailer     http.Header

	// Sending, see flow.go.
	blocked      bool          // in conn.blocked
	wake         chan struct{} // closed when the window may have grown; nil: none
	resetCode    ErrCode       // of a write timeout
	headerQueued bool          // the response has begun

	readDeadline, writeDeadline deadline

	inline [72]byte // first buffer of unread; the struct and the 8 bytes of the allocator fill a size class
}

var (
	errReset        = errors.New("http2: stream reset by the client")
	errResetByUs    = errors.New("http2: stream reset by the server")
	errHandlerEnded = errors.New("http2: handler has returned")
	errConnClosed   = errors.New("http2: connection closed")
)

// How a stream was closed.
type closedHow uint8

const (
	notClosed closedHow = iota
	// closedNormally is a stream that the client ended or reset. Frames on it are errors.
	closedNormally
	// closedByServer is a stream that the server ended first. Frames on it may be in transit.
	closedByServer
)

// closedStreams remembers the streams that were closed last.
type closedStreams struct {
	ids  [64]uint32
	how  [64]closedHow
	next int
}

func (s *closedStreams) add(id uint32, how closedHow) {
	s.ids[s.next], s.how[s.next] = id, how
	s.next = (s.next + 1) % len(s.ids)
}

func (s *closedStreams) find(id uint32) closedHow {
	for i, closed := range s.ids {
		if closed == id {
			return s.how[i]
		}
	}
	return notClosed
}

// openStream opens the stream of a header block.
func (c *conn) openStream(id uint32, b *headerBlock, ignored bool) error {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return errConnClosed
	}
	c.maxStream = id
	full := len(c.streams) >= c.srv.maxStreams
	if ignored || full {
		c.closed.add(id, closedByServer)
	}
	c.mu.Unlock()
	switch {
	case ignored: // after GOAWAY (section 6.8)
		return nil
	case full:
		return streamError{id, errRefusedStream, "too many streams"}
	}
	st := &stream{conn: c, id: id, handler: c.handler}
	st.ctx.Context, st.cancel = context.WithCancel(c.ctx) //nolint:fatcontext // set once
	if b.tooLarge {
		b.replacePseudo()
	}
	if reason := c.newRequest(st, b); reason != "" {
		st.cancel()
		return streamError{id, errProtocol, reason}
	}
	if b.tooLarge {
		st.handler = headersTooLarge{}
	}
	st.cond.L, st.resetCode = &c.mu, errInternal
	st.unread = st.inline[:0]
	st.recvClosed = b.endStream
	st.recvWindow = c.srv.streamWindow
	st.w.init(st)
	st.readDeadline.after(c.srv.readTimeout)
	st.writeDeadline.after(c.srv.writeTimeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		st.cancel()
		return errConnClosed
	}
	c.streams[id] = st
	if len(c.streams) == 1 {
		c.setActive()
	}
	st.headerSize = b.size
	if !b.endStream {
		before := c.pending
		c.pending = st
		if before != nil {
			return c.start(before)
		}
		return nil
	}
	return c.start(st)
}

// headersTooLarge responds to a header list over the limit (RFC 6585, section 5).
type headersTooLarge struct{}

func (headersTooLarge) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
	_, _ = w.Write([]byte("<h1>HTTP Error 431</h1><p>Request Header Field(s) Too Large</p>"))
}

// start starts the handler of a stream, or queues it. c.mu is held.
func (c *conn) start(st *stream) error {
	if c.pending == st {
		c.pending = nil
	}
	if st.started || st.closed {
		return nil
	}
	if c.ended {
		return errConnClosed
	}
	st.started = true
	c.started = max(c.started, st.id)
	if c.running >= c.srv.maxStreams {
		st.queued = true
		c.queue = append(c.queue, st)
		return metered(c.hooks.Meter.Queue(st.headerSize))
	}
	c.running++
	c.srv.workers.run(st)
	return nil
}

// unqueue records that a stream left the queue. c.mu is held.
func (c *conn) unqueue(st *stream) {
	st.queued = false
	_ = c.hooks.Meter.Queue(-st.headerSize) // only growth can fail
}

// startPending starts the handler that waited for the rest of its request, before the reading goroutine blocks.
func (c *conn) startPending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == nil {
		return nil
	}
	return c.start(c.pending)
}

// handlerEnded starts a queued handler in place of one that returned. c.mu is held.
func (c *conn) handlerEnded() {
	c.running--
	if len(c.queue) > 0 && !c.ended {
		st := c.queue[0]
		c.queue = slices.Delete(c.queue, 0, 1)
		c.unqueue(st)
		c.running++
		c.srv.workers.run(st)
	}
	if c.running == 0 && len(c.streams) == 0 {
		c.setIdle()
	}
}

// closeStream removes a stream. c.mu is held.
func (c *conn) closeStream(st *stream, err error, how closedHow) {
	if st.closed {
		return
	}
	st.closed, st.err = true, err
	delete(c.streams, st.id)
	c.closed.add(st.id, how)
	if c.pending == st {
		c.pending = nil
	}
	if st.queued {
		c.unqueue(st)
		if i := slices.Index(c.queue, st); i >= 0 {
			c.queue = slices.Delete(c.queue, i, i+1)
		}
	}
	c.discardUnread(st)
	if st.blocked {
		st.blocked = false
		c.blocked = slices.DeleteFunc(c.blocked, func(other *stream) bool { return other == st })
	}
	c.sendReserved -= st.reserved
	st.reserved = 0
	st.signal()
	st.cancel()
	if len(c.streams) == 0 {
		c.lastStreamClosed()
	}
}

// resetStream sends RST_STREAM and closes the stream, if it is open. c.mu is held.
func (c *conn) resetStream(st *stream, code ErrCode, err error) {
	if st.closed {
		return
	}
	c.appendReset(st.id, code)
	c.closeStream(st, err, closedByServer)
	c.kick()
}

// streamFailed handles a stream error (section 5.4.2).
func (c *conn) streamFailed(e streamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appendReset(e.stream, e.code)
	if st := c.streams[e.stream]; st != nil {
		c.closeStream(st, e, closedByServer)
	} else if c.closed.find(e.stream) == notClosed {
		c.closed.add(e.stream, closedByServer)
	}
	c.kick()
	return c.awaitControl()
}

// signal wakes all goroutines that wait for the stream. c.mu is held.
func (st *stream) signal() {
	st.cond.Broadcast()
	if st.wake != nil {
		close(st.wake)
		st.wake = nil
	}
}

// deadline is a deadline of a stream. A timer runs only while a goroutine waits. It is guarded by conn.mu.
type deadline struct {
	at       time.Time // zero: none
	exceeded bool      // it has passed, and cannot be extended
	timer    *time.Timer
}

func (d *deadline) after(timeout time.Duration) {
	if timeout > 0 {
		d.at = time.Now().Add(timeout)
	}
}

func (d *deadline) expired() bool {
	d.exceeded = d.exceeded || !d.at.IsZero() && !time.Now().Before(d.at)
	return d.exceeded
}

// wait waits for a signal of the stream, or until the deadline.
func (d *deadline) wait(st *stream) {
	if !d.at.IsZero() {
		d.timer = time.AfterFunc(time.Until(d.at), func() {
			st.conn.mu.Lock()
			defer st.conn.mu.Unlock()
			st.cond.Broadcast()
		})
		defer d.stop()
	}
	st.cond.Wait()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
