package transport

import (
	"errors"
	"net"
	"os"
	"time"
)

// stallChecks is the number of progress checks of a blocked write per stall timeout.
const stallChecks = 4

// Write writes to the connection.
func (c *serverConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 && c.own == nil {
		c.memory.progress.Store(int64(c.listener.now()))
	}
	return n, err
}

// SetDeadline sets the deadlines of reads and writes, see SetWriteDeadline.
func (c *serverConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline sets the write deadline. HTTP/2 over TLS ignores it and applies the stall timeout, see rawConn.
func (c *serverConn) SetWriteDeadline(t time.Time) error {
	if raw := c.tls.raw; raw != nil && raw.owner.Load() != nil {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// writeChecked writes p and checks the progress several times per stall timeout. It fails after
// stallChecks checks in a row without progress.
func (c *serverConn) writeChecked(to net.Conn, p []byte) (written int, err error) {
	for stalled := 0; written < len(p); {
		if err := to.SetWriteDeadline(time.Now().Add(c.stallTimeout() / stallChecks)); err != nil {
			return written, err
		}
		n, err := to.Write(p[written:])
		written += n
		if stalled++; n > 0 {
			stalled = 0
			c.accepted.Add(1)
		}
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || stalled == stallChecks) {
			return written, err
		}
	}
	return written, nil
}

// stallTimeout is the stall timeout of the listener, or lingerTimeout while the connection is closing.
func (c *serverConn) stallTimeout() time.Duration {
	if c.closing.Load() {
		return min(c.listener.opts.StallTimeout, lingerTimeout)
	}
	return c.listener.opts.StallTimeout
}
