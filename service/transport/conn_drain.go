package transport

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
)

// Connections tracks the connections of a server that matter during shutdown. Its method Track is
// for http.Server.ConnState. It is safe for concurrent use.
type Connections struct {
	mu        sync.Mutex
	unused    map[net.Conn]struct{} // without a request so far
	keepAlive map[net.Conn]struct{} // HTTP/1.1 connections that can carry another request
	http2     map[*serverConn]struct{}
	drained   chan struct{} // closed when unused and keepAlive are empty; nil: no Drain is waiting
}

// NewConnections returns an empty set.
func NewConnections() *Connections {
	return &Connections{
		unused: make(map[net.Conn]struct{}), keepAlive: make(map[net.Conn]struct{}), http2: make(map[*serverConn]struct{}),
	}
}

// Track records a state change of a connection.
func (c *Connections) Track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.unused[conn] = struct{}{}
	case http.StateActive:
		delete(c.unused, conn)
		if own, ok := conn.(*serverConn); ok && own.isHTTP2() {
			c.http2[own] = struct{}{}
		} else if ok {
			c.keepAlive[conn] = struct{}{}
		}
	case http.StateIdle:
	case http.StateClosed, http.StateHijacked:
		delete(c.unused, conn)
		delete(c.keepAlive, conn)
		if own, ok := conn.(*serverConn); ok && own.ended() {
			delete(c.http2, own)
		}
	}
	if c.drained != nil && len(c.unused)+len(c.keepAlive) == 0 {
		close(c.drained)
		c.drained = nil
	}
}

// ended reports whether StateClosed is the end of the connection. net/http reports it before, when it releases a detached connection.
func (c *serverConn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	released := c.released
	c.released = false
	return !released
}

// isHTTP2 reports whether a connection with a request is HTTP/2.
func (c *serverConn) isHTTP2() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.http2
}

// Drain waits until all connections without a request and all HTTP/1.1 connections are closed.
// http.Server.Shutdown would close the latter without a response to a request in transit; they
// close after their next response, see Guard.DisableKeepAlives. When the context ends, Drain closes
// the connections without a request, because Shutdown would wait for them.
//
// HTTP/2 clients are notified at once, and their connections are not awaited. Shutdown would send a GOAWAY without the
// streams in transit, which proxies do not repeat: nginx responds 502.
func (c *Connections) Drain(ctx context.Context) {
	c.mu.Lock()
	retired := slices.Collect(maps.Keys(c.http2))
	c.mu.Unlock()
	for _, conn := range retired {
		conn.retire()
	}
	c.mu.Lock()
	quiet := c.drained
	if quiet == nil && len(c.unused)+len(c.keepAlive) > 0 {
		quiet = make(chan struct{})
		c.drained = quiet
	}
	c.mu.Unlock()
	if quiet == nil {
		return
	}
	select {
	case <-quiet:
		return
	case <-ctx.Done():
	}
	c.mu.Lock()
	var silent []net.Conn
	for conn := range c.unused {
		silent = append(silent, conn)
	}
	c.mu.Unlock()
	for _, conn := range silent {
		_ = conn.Close() // the error is irrelevant, the client may have closed it
	}
}
