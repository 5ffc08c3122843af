package transport

import (
	"errors"
	"net"
	"os"
	"runtime"
	"time"
)

const (
	// maxPending bounds the bytes that wait to be written. Further writes block.
	maxPending = 64 << 10
	// maxIdleBuffer is the largest write buffer that an idle connection keeps.
	maxIdleBuffer = 8 << 10
	// stallChecks is the number of progress checks of a blocked write per stall timeout.
	stallChecks = 4
)

// Write queues p for the flushing goroutine. An error of the connection is returned by a later
// Write.
func (c *serverConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if direct := c.own != nil; direct || !c.http2 {
		c.mu.Unlock()
		if n, err = c.Conn.Write(p); n > 0 && !direct {
			c.memory.progress.Store(int64(c.listener.now()))
		}
		c.mu.Lock()
		return n, err
	}
	for n < len(p) {
		for len(c.pending) >= c.capacity(len(p)-n) && c.err == nil && !c.closing && !c.goingAway {
			c.cond.Wait()
		}
		if c.err != nil {
			return n, c.err
		}
		if c.closing {
			return n, net.ErrClosed
		}
		if c.goingAway {
			// After an error net/http would close the connection before the GOAWAY is sent.
			if c.goAway != nil {
				c.appendGoAway(p[n:])
			}
			return len(p), nil
		}
		c.frameQueued = true
		size := min(c.capacity(len(p)-n)-len(c.pending), len(p)-n)
		c.pending = append(c.pending, p[n:n+size]...)
		if c.budget != nil {
			c.budget.sent(c.pending[len(c.pending)-size:])
		}
		n += size
		if c.goAway != nil {
			c.appendGoAway(nil)
		}
		if !c.flushing {
			c.flushing = true
			go c.flush()
		}
	}
	return n, nil
}

// flush writes until nothing is pending. It yields once, so that other goroutines can add to the
// batch.
func (c *serverConn) flush() {
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) > 0 && c.err == nil {
		batch := c.pending
		c.pending, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		err := c.writeBatch(batch)
		c.mu.Lock()
		if c.err = err; cap(batch) <= maxIdleBuffer {
			c.spare = batch[:0]
		}
		c.afterFlush()
		c.cond.Broadcast()
	}
	if cap(c.pending) > maxIdleBuffer {
		c.pending = nil
	}
	c.flushing = false
	c.cond.Broadcast()
	if c.err != nil || c.closing {
		_ = c.closeConn() // the error of the write is the one that counts
	}
}

// writeBatch fails if no byte is written within the stall timeout.
func (c *serverConn) writeBatch(batch []byte) (err error) {
	if c.tls.raw != nil {
		_, err = c.Conn.Write(batch) // rawConn applies the stall timeout
	} else {
		_, err = c.writeChecked(c.Conn, batch)
	}
	return err
}

// writeChecked writes p and checks the progress several times per stall timeout. It fails after
// stallChecks checks in a row without progress.
func (c *serverConn) writeChecked(to net.Conn, p []byte) (written int, err error) {
	for stalled := 0; written < len(p); {
		if err := c.setCheckDeadline(to); err != nil {
			return written, err
		}
		n, err := to.Write(p[written:])
		written += n
		if stalled++; n > 0 {
			stalled = 0
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded) || stalled == stallChecks:
			return written, err
		case n > 0:
			c.partialWrites.Add(1)
		}
	}
	return written, nil
}

// setCheckDeadline sets the write deadline of the next progress check: a fraction of the stall
// timeout, or of lingerTimeout while the connection is closing.
func (c *serverConn) setCheckDeadline(to net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.listener.opts.StallTimeout
	if c.closing || c.goingAway {
		limit = min(limit, lingerTimeout)
	}
	return to.SetWriteDeadline(time.Now().Add(limit / stallChecks))
}
