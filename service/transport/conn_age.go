package transport

import (
	"math/rand/v2"
	"time"

	"github.com/yourorg/userservice/service/http2"
)

// newAge returns the age of one connection, MaxAge with a jitter of a tenth, so that connections that were opened
// together are not closed together. 0: unlimited.
func (o *ListenOptions) newAge() time.Duration {
	if o.MaxAge <= 0 {
		return 0
	}
	return time.Duration(float64(o.MaxAge) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spreads load
}

// hasAge reports whether the connection has a maximum age. nil has none.
func (c *serverConn) hasAge() bool { return c != nil && c.expires > 0 }

// isOld reports whether the connection has reached its age.
func (c *serverConn) isOld() bool { return c.hasAge() && c.listener.now() >= c.expires }

// retire notifies the client of a connection of service/http2, so that it opens another one for its next request. An old
// connection of net/http is closed after its next response, see Guard.
func (c *serverConn) retire() {
	if own := c.control(); own != nil {
		own.Shutdown()
	}
}

// control returns the control of a connection of service/http2, nil for others.
func (c *serverConn) control() http2.Control {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own
}

// closeOld retires the connections that reached their age. After the grace it closes those without calls, cancels the
// calls of the others, and closes them when the clients had time to receive the errors.
func (l *Listener) closeOld() {
	if l.opts.MaxAge <= 0 {
		return
	}
	for _, c := range l.all((*serverConn).isOld) {
		switch late := l.now() - c.expires - l.opts.AgeGrace; {
		case late < 0:
			c.retire()
		case late < lingerTimeout && c.memory.requests.Load() > 0: // without, the next request would fail
			c.endCalls(l.opts.AgeError)
		default:
			c.abort(http2.CloseAge)
		}
	}
}

// endCalls cancels the contexts of the requests of the connection.
func (c *serverConn) endCalls(cause error) {
	if cancel := c.cancel.Load(); cancel != nil {
		(*cancel)(cause)
	}
}
