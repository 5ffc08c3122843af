package transport

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	// lingerTimeout bounds the time for sending the last bytes of a connection and for reading the
	// rest of its input.
	lingerTimeout = time.Second
	// maxLingerBytes bounds the input that is read and discarded before a connection is closed.
	maxLingerBytes = 1 << 20
)

// Close closes the connection after pending bytes are written, for lingerTimeout at most. It does
// not wait for them.
func (c *serverConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return nil // net/http closes twice
	case c.detached:
		c.detached = false
		return nil
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
	linger := first && c.http2 && c.own == nil && c.aborted.Load() && c.err == nil
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

// CloseWrite shuts down the writing side, if the connection supports it.
func (c *serverConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
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
