package http2

import "time"

// stallChecks is the number of times per stall timeout that a blocked write is interrupted.
const stallChecks = 4

// arm makes the timer of the connection run within d. c.mu is held.
func (c *conn) arm(d time.Duration) {
	if d <= 0 {
		return
	}
	at := c.srv.now() + d
	if c.timerAt != 0 && c.timerAt <= at {
		return
	}
	c.timerAt = at
	c.timer.Reset(d)
}

// check is a pass over the timeouts of a connection.
type check struct {
	now, next monotonic // next: time until the next timeout; 0: none
}

// due reports whether a timeout has passed. Otherwise it counts for next.
func (k *check) due(since monotonic, timeout time.Duration) bool {
	if timeout <= 0 {
		return false
	}
	left := since + timeout - k.now
	if left > 0 && (k.next == 0 || left < k.next) {
		k.next = left
	}
	return left <= 0
}

// onTimer enforces the timeouts of the connection.
func (c *conn) onTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.timerAt = 0
	s := c.srv
	k := check{now: s.now()}
	if since := monotonic(c.headerSince.Load()); since != 0 && k.due(since, s.headerTimeout) {
		c.stopReading(limitError{CloseHeaderTimeout})
		return
	}
	if c.goAwayPing && k.due(c.shutdownAt, 1) {
		c.finalGoAway()
	}
	if c.idleSince >= 0 && k.due(c.idleSince, s.idleTimeout) || c.maxAge > 0 && k.due(c.opened, c.maxAge) {
		c.startShutdown()
	}
	if c.writeSince != 0 && k.due(c.writeSince, s.stallTimeout/stallChecks) {
		c.interruptWrite(k.now)
	}
	c.checkAlive(&k)
	if c.idleSince < 0 {
		k.due(k.now, s.tick) // for writes that block, and header blocks that begin
	}
	if !c.ended && k.next > 0 {
		c.arm(k.next)
	}
}

// checkAlive sends a PING on a connection that receives nothing, and closes it without an acknowledgment. c.mu
// is held.
func (c *conn) checkAlive(k *check) {
	read := monotonic(c.lastRead.Load())
	if read > c.pingSent {
		c.pingSent = 0 // any frame shows that the client is alive
	}
	switch {
	case c.pingSent != 0:
		if k.due(c.pingSent, c.srv.pingTimeout) {
			c.abort()
		}
	case k.due(read, c.srv.pingAfter):
		c.pingSent = k.now
		c.appendPing(0, pingData[:])
		c.kick()
		k.due(k.now, c.srv.pingTimeout)
	}
}

// interruptWrite makes a blocked write return, see writeBatch. c.mu is held.
func (c *conn) interruptWrite(now monotonic) {
	if c.interruptible() {
		_ = c.net.SetWriteDeadline(time.Unix(1, 0)) // the write fails if the connection is closed
		return
	}
	if now-c.writeSince >= c.srv.stallTimeout {
		c.abort()
		return
	}
	c.arm(c.srv.stallTimeout / stallChecks)
}
