package transport

import (
	"errors"
	"time"

	"github.com/yourorg/userservice/service/http2"
)

const (
	// lingerTimeout bounds the time for sending the last bytes of a connection and for reading the
	// rest of its input.
	lingerTimeout = time.Second
	// maxLingerBytes bounds the input that is read and discarded before a connection is closed.
	maxLingerBytes = 1 << 20
)

// Close closes the connection. It may be called twice, as by net/http.
func (c *serverConn) Close() error {
	c.mu.Lock()
	detached, isHTTP2, foreign := c.detached, c.http2, c.foreign
	c.detached = false
	c.mu.Unlock()
	if detached || c.closing.Swap(true) {
		return nil
	}
	if c.onClose != nil {
		c.onClose()
	}
	// HTTP/2 clients may open a connection before they have a request.
	noRequest := !isHTTP2 && c.hasInput.Load() && !c.hasRequest.Load()
	if report := c.listener.opts.OnNoRequest; noRequest && report != nil {
		report(c.RemoteAddr(), foreign)
	}
	return c.Conn.Close()
}

// CloseWrite shuts down the writing side, if the connection supports it.
func (c *serverConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// abort closes the connection. Clients of service/http2 receive a GOAWAY.
func (c *serverConn) abort(reason http2.CloseReason) {
	if !c.aborted.CompareAndSwap(false, true) {
		return
	}
	if own := c.control(); own != nil {
		own.End(reason) // it sends the GOAWAY, reports the reason and closes the connection
	} else {
		c.listener.reportClose(c, reason)
		_ = c.Close() // the error is irrelevant, the connection may be closed already
	}
	c.memory.Release()
}
