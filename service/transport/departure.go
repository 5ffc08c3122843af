package transport

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Connections knows those of a server that hold its stop up or might be cut by it. Its
// Watch is for http.Server.ConnState. It is safe for use by many goroutines.
type Connections struct {
	mu    sync.Mutex
	fresh map[net.Conn]struct{} // no request has come on them yet
	kept  map[net.Conn]struct{} // those of HTTP/1.1 that may bring another request
	quiet chan struct{}         // closed when there is none of either; nil: nobody waits
}

// NewConnections returns one that knows of none.
func NewConnections() *Connections {
	return &Connections{fresh: make(map[net.Conn]struct{}), kept: make(map[net.Conn]struct{})}
}

// Watch notes what has become of a connection.
func (c *Connections) Watch(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.fresh[conn] = struct{}{}
	case http.StateActive:
		delete(c.fresh, conn)
		if speaksHTTP1(conn) {
			c.kept[conn] = struct{}{}
		}
	case http.StateIdle:
	case http.StateClosed, http.StateHijacked:
		delete(c.fresh, conn)
		delete(c.kept, conn)
	}
	if c.quiet != nil && len(c.fresh)+len(c.kept) == 0 {
		close(c.quiet)
		c.quiet = nil
	}
}

// speaksHTTP1 reports whether a request that has come on the connection is not one of
// HTTP/2.
func speaksHTTP1(conn net.Conn) bool {
	c, ok := conn.(*gatherConn)
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.gather
}

// SeeOff waits, once no more are accepted, until those have gone that net/http would
// close without an answer to a request that is on its way: they end with their next
// answer, see Guard.Depart. When the context ends it closes those that no request has
// come on, for which net/http would wait.
func (c *Connections) SeeOff(ctx context.Context) {
	c.mu.Lock()
	quiet := c.quiet
	if quiet == nil && len(c.fresh)+len(c.kept) > 0 {
		quiet = make(chan struct{})
		c.quiet = quiet
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
	for conn := range c.fresh {
		silent = append(silent, conn)
	}
	c.mu.Unlock()
	for _, conn := range silent {
		_ = conn.Close() // its peer may have closed it
	}
}
