package transport

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/http2"
)

// useHTTP2 makes the server use service/http2 in place of the HTTP/2 of net/http.
func useHTTP2(server *http.Server) *http2.Server {
	return http2.Configure(server, http2.Options{MaxHeaderFields: maxHeaderFields, Hooks: func(c net.Conn, control http2.Control) http2.Hooks {
		conn, ok := c.(*serverConn)
		if !ok {
			return http2.Hooks{}
		}
		return conn.handOver(control)
	}})
}

// handOver passes the connection to service/http2. It is called by the reading goroutine.
func (c *serverConn) handOver(control http2.Control) http2.Hooks {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = control
	c.memory.Shrink(budget.Connection, connBytes-ownConnBytes)
	c.detached, c.released = c.base != nil, c.base != nil
	return http2.Hooks{
		Frames:  c.listener.opts.Frames,
		Meter:   meter{c},
		OnClose: func(reason http2.CloseReason) { c.listener.reportClose(c, reason) },
		Context: c.base, Raw: c.file(), AfterRead: c.takeTurn, Accepted: c.accepted.Load, ShortReads: c.tls.conn != nil,
	}
}

// file returns a function that returns the file of a connection without TLS, when nothing is left of what was read to detect the
// protocol. It is nil if there is no file.
func (c *serverConn) file() func() syscall.RawConn {
	inner, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := inner.SyscallConn()
	if err != nil {
		return nil
	}
	return func() syscall.RawConn {
		if c.reader != nil && c.reader.Buffered() > 0 {
			return nil
		}
		c.reader = nil
		return raw
	}
}

// meter reserves the memory of a connection handled by service/http2.
type meter struct{ c *serverConn }

// Header reserves memory for an incomplete header block, and for the table that the first one fills. A complete block is progress:
// its handler may start late on a busy machine, and the connection must not be closed for want of progress meanwhile.
func (m meter) Header(encoded int) error {
	if encoded == 0 {
		m.Transferred()
	}
	if !m.c.memory.table { // without memory the request is rejected, not the connection
		m.c.memory.table = m.c.memory.Grow(budget.Connection, tableBytes) == nil
	}
	return m.c.memory.hold(budget.Header, &m.c.memory.block, blockFactor*int64(encoded))
}

// Input reserves memory for a large input buffer.
func (m meter) Input(size int) error {
	return m.c.memory.hold(budget.Connection, &m.c.memory.input, int64(size))
}

// Queue reserves memory for requests that wait for a handler.
func (m meter) Queue(change int64) error {
	if change < 0 {
		m.c.memory.Shrink(budget.Header, -change)
		return nil
	}
	return m.c.memory.Grow(budget.Header, change)
}

// Unread records received or read body bytes.
func (m meter) Unread(change int64) {
	m.c.memory.addUnread(change)
	if change < 0 {
		_ = m.c.memory.reserveBody() // it only fails for more
		m.Transferred()
	}
}

// Admit reserves memory for unread body bytes. It waits for bodyMemoryTimeout at most.
func (m meter) Admit() error {
	err := m.c.memory.reserveBody()
	for waited := time.Duration(0); err != nil && waited < bodyMemoryTimeout && !m.c.closing.Load(); waited += bodyMemoryRetry {
		time.Sleep(bodyMemoryRetry)
		err = m.c.memory.reserveBody()
	}
	return err
}

// Output reserves memory for queued output, twice, because an equal number of bytes may be in a write.
func (m meter) Output(bytes int) (allowed int) {
	held := &m.c.memory.output
	if m.c.memory.hold(budget.Response, held, 2*int64(bytes)) != nil {
		return int(*held / 2)
	}
	return bytes
}

// Transferred records the time of the last progress.
func (m meter) Transferred() { m.c.memory.progress.Store(int64(m.c.listener.now())) }

// hold changes a reservation from *held to n bytes. The caller guards held.
func (m *connMemory) hold(kind budget.Kind, held *int64, n int64) error {
	if n < *held {
		m.Shrink(kind, *held-n)
	} else if err := m.Grow(kind, n-*held); err != nil {
		return err
	}
	*held = n
	return nil
}

// streamControl is the access to the HTTP/2 stream of a response.
type streamControl interface {
	// ReserveWindow reserves flow-control window for a message of n bytes. If the window is too small, it returns a
	// channel that is closed when the window may have grown.
	ReserveWindow(n int64) <-chan struct{}
	// Progress returns a number that changes when the client receives something.
	Progress() int64
	// RefuseOnReset makes a reset of the stream use REFUSED_STREAM.
	RefuseOnReset()
	// Observe sets the observer of the response.
	Observe(o http2.Observer)
}

// contextControl replaces the context of a request of service/http2.
type contextControl interface {
	BaseContext() context.Context
	SetContext(ctx context.Context)
}

// headerControl releases the header of a response of service/http2.
type headerControl interface{ ReleaseHeader() }

// streamOf returns the stream of a response of service/http2, nil for others.
func (x *Exchange) streamOf() streamControl {
	own, _ := x.ResponseWriter.(streamControl)
	return own
}
