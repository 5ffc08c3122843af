package http2

import (
	"encoding/binary"
	"time"
)

const (
	// maxChunk is the largest DATA frame that is sent, so that streams take turns.
	maxChunk = 16 << 10
	// maxQueued bounds the queued output of responses. A response of up to smallWrite bytes may exceed it
	// by as much again, so it does not wait behind a large one.
	maxQueued  = 64 << 10
	smallWrite = 4 << 10
	// maxControl bounds the queued control frames.
	maxControl = 32 << 10
	// leastWindow is the window of the connection for which the streams that wait for it are woken: a byte at a time, each would
	// wake all of them. A client that has consumed everything has returned more, since the window starts with 64 KiB.
	leastWindow = 512
	// initialWindow is the default of windows (section 6.9.2).
	initialWindow = 1<<16 - 1
)

// appendWindowUpdate queues a WINDOW_UPDATE. c.mu is held.
func (c *conn) appendWindowUpdate(stream uint32, n int64) {
	c.out = binary.BigEndian.AppendUint32(appendFrameHeader(c.output(), 4, frameWindowUpdate, 0, stream), uint32(n))
	c.control += frameHeaderLen + 4
}

// creditConn returns n bytes of DATA to the receive window of the connection. c.mu is held.
func (c *conn) creditConn(n int64) {
	if c.recvCredit += n; c.recvCredit >= c.srv.connWindow/2 {
		c.appendWindowUpdate(0, c.recvCredit)
		c.recvWindow += c.recvCredit
		c.recvCredit = 0
		c.kick()
	}
	if n > 0 {
		c.hooks.Meter.Unread(-n)
	}
}

// creditStream returns n bytes of DATA to the receive window of a stream. c.mu is held.
func (c *conn) creditStream(st *stream, n int64) {
	if st.recvClosed || st.closed {
		return
	}
	if st.recvCredit += n; st.recvCredit >= c.srv.streamWindow/2 {
		c.appendWindowUpdate(st.id, st.recvCredit)
		st.recvWindow += st.recvCredit
		st.recvCredit = 0
		c.kick()
	}
}

// discardUnread drops the unread body. Its bytes are credited here and nowhere else. c.mu is held.
func (c *conn) discardUnread(st *stream) {
	if n := len(st.unread) - st.unreadFrom; n > 0 {
		c.creditConn(int64(n))
		st.bodyDropped = true
	}
	putBody(st.unread)
	st.unread, st.unreadFrom, st.bodyClosed = nil, 0, true
}

// read copies unread body bytes to p. c.mu is held.
func (st *stream) read(p []byte) int {
	n := copy(p, st.unread[st.unreadFrom:])
	st.unreadFrom += n
	st.shrinkUnread()
	st.conn.creditConn(int64(n))
	st.conn.creditStream(st, int64(n))
	return n
}

// sendWindow returns the send window of a stream. A change of SETTINGS_INITIAL_WINDOW_SIZE changes that of all
// streams at once (section 6.9.2). c.mu is held.
func (st *stream) sendWindow() int64 { return st.conn.peerInitial + st.sendDelta }

// windowUpdate handles WINDOW_UPDATE (section 6.9). c.mu is held.
func (c *conn) windowUpdate(h frameHeader, p []byte) error {
	if len(p) != 4 {
		return connError{errFrameSize, "WINDOW_UPDATE must have 4 bytes"}
	}
	n := int64(binary.BigEndian.Uint32(p) &^ (1 << 31))
	if h.stream == 0 {
		switch {
		case n == 0:
			return connError{errProtocol, "window increment is 0"}
		case c.sendWindow+n > maxWindow:
			return connError{errFlowControl, "window of the connection exceeds its maximum"}
		}
		if c.sendWindow += n; c.sendWindow >= leastWindow {
			c.wakeBlocked()
		}
		return nil
	}
	if c.isIdle(h.stream) {
		return connError{errProtocol, "WINDOW_UPDATE on an idle stream"}
	}
	st := c.streams[h.stream]
	switch {
	case st == nil:
		return nil
	case n == 0:
		return streamError{h.stream, errProtocol, "window increment is 0"}
	case st.sendWindow()+n > maxWindow:
		return streamError{h.stream, errFlowControl, "window of the stream exceeds its maximum"}
	}
	st.sendDelta += n
	st.progress++
	st.signal()
	return nil
}

// setInitialWindow changes the send windows of all streams. c.mu is held.
func (c *conn) setInitialWindow(n int64) error {
	for _, st := range c.streams {
		if n+st.sendDelta > maxWindow {
			return connError{errFlowControl, "window of a stream exceeds its maximum"}
		}
	}
	grown := n > c.peerInitial
	c.peerInitial = n
	if grown {
		for _, st := range c.streams {
			st.signal()
		}
	}
	return nil
}

// wakeBlocked wakes the streams that wait for a window or for room in the output. c.mu is held.
func (c *conn) wakeBlocked() {
	for i, st := range c.blocked {
		c.blocked[i] = nil
		st.blocked = false
		st.signal()
	}
	c.blocked = c.blocked[:0]
}

// addBlocked adds a stream to those woken by wakeBlocked. c.mu is held.
func (c *conn) addBlocked(st *stream) {
	if !st.blocked {
		st.blocked = true
		c.blocked = append(c.blocked, st)
	}
}

// awaitSend waits until DATA can be queued and returns how many of want bytes. c.mu is held.
func (c *conn) awaitSend(st *stream, want int) (int, error) {
	for {
		if st.err != nil {
			return 0, st.err
		}
		if st.writeDeadline.expired() {
			return 0, st.writeTimedOut()
		}
		if window := st.sendWindow(); window > 0 { // else the connection need not wake the stream
			switch {
			case c.sendWindow <= 0:
			case c.canQueue(want):
				return int(min(int64(want), c.sendWindow, window, int64(c.peerMaxFrame), maxChunk)), nil
			default:
				c.full = true
			}
			c.addBlocked(st)
		}
		c.kick()
		st.w.beforeWait()
		st.writeDeadline.wait(st)
	}
}

// awaitRoom waits until HEADERS can be queued: flow control does not hold them back, but a client that reads nothing does. c.mu is held.
func (c *conn) awaitRoom(st *stream) error {
	for {
		switch {
		case st.err != nil:
			return st.err
		case st.writeDeadline.expired():
			return st.writeTimedOut()
		case c.canQueue(smallWrite):
			return nil
		}
		c.full = true
		c.addBlocked(st)
		c.kick()
		st.w.beforeWait()
		st.writeDeadline.wait(st)
	}
}

// canQueue reports whether the output has room for a write of n bytes. c.mu is held.
func (c *conn) canQueue(n int) bool {
	limit := maxQueued
	if n <= smallWrite {
		limit *= 2
	}
	if len(c.out) >= limit {
		return false
	}
	want := len(c.out) + min(n, maxChunk)
	if want > max(minQueued, c.allowed) {
		c.allowed = c.hooks.Meter.Output(want)
	}
	return len(c.out) < max(minQueued, c.allowed)
}

// ReserveWindow reserves n bytes of the send windows, so that a message can be sent whole or not at all. If
// a window is too small, it returns a channel that is closed when the window may have grown. It
// does not wait for more than half of the initial window, because clients may update a window only after
// half of it was consumed. It is for the goroutine that writes.
func (w *responseWriter) ReserveWindow(n int64) (wake <-chan struct{}) {
	st := w.stream
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.closed || n > min(c.peerInitial, initialWindow)/2 {
		return nil
	}
	need := n + int64(len(w.buf)) // buffered bytes precede it
	if st.sendWindow()-st.reserved >= need && c.sendWindow-c.sendReserved >= need {
		st.reserved += n
		c.sendReserved += n
		return nil
	}
	if st.wake == nil {
		st.wake = make(chan struct{})
	}
	c.addBlocked(st)
	return st.wake
}

// sent records n bytes of DATA. c.mu is held.
func (c *conn) sent(st *stream, n int) {
	c.sendWindow -= int64(n)
	st.sendDelta -= int64(n)
	used := min(st.reserved, int64(n))
	st.reserved -= used
	c.sendReserved -= used
	st.progress++
	c.budget.dataSent.Add(1)
}

// monotonic is a time since the start of the server.
type monotonic = time.Duration
