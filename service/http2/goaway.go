package http2

import (
	"encoding/binary"
	"errors"
)

// Payloads of the pings of this server.
var (
	pingData       = [8]byte{'k', 'e', 'e', 'p', 'i', 'n', 'g', 0}
	goAwayPingData = [8]byte{'g', 'o', 'a', 'w', 'a', 'y', 0, 0}
)

// appendGoAway queues GOAWAY. c.mu is held.
func (c *conn) appendGoAway(last uint32, code ErrCode, debug string) {
	c.out = appendFrameHeader(c.output(), 8+len(debug), frameGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
	c.out = append(c.out, debug...)
}

// Shutdown starts a graceful shutdown (section 6.8): the first GOAWAY has the largest stream id, and after a
// round trip, or lingerTimeout, the final one has the id of the last stream that is served.
func (c *conn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.startShutdown()
}

// startShutdown is Shutdown with c.mu held.
func (c *conn) startShutdown() {
	if c.graceful || c.ended {
		return
	}
	c.graceful, c.goAwayPing = true, true
	c.appendGoAway(maxStreamID, errNo, "")
	c.appendPing(0, goAwayPingData[:])
	c.kick()
	c.shutdownAt = c.srv.now() + lingerTimeout
	c.arm(lingerTimeout)
}

// finalGoAway ends the graceful shutdown. Open streams continue. c.mu is held.
func (c *conn) finalGoAway() {
	if c.goAwaySent || c.ended {
		return
	}
	c.goAwayPing, c.goAwaySent, c.goAwayLast = false, true, c.maxStream
	c.appendGoAway(c.goAwayLast, errNo, "")
	c.kick()
	if len(c.streams) == 0 {
		c.stopReading(nil)
	}
}

// goAwayReceived handles GOAWAY (section 6.8): the connection ends with its last stream. c.mu is held.
func (c *conn) goAwayReceived(h frameHeader, p []byte) error {
	switch {
	case h.stream != 0:
		return connError{errProtocol, "GOAWAY on a stream"}
	case len(p) < 8:
		return connError{errFrameSize, "GOAWAY must have 8 bytes"}
	}
	c.startShutdown()
	return nil
}

// sendGoAwayFor sends GOAWAY for an error of the connection. c.mu is held.
func (c *conn) sendGoAwayFor(err error) {
	var e connError
	var limit limitError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &limit):
		e = connError{errEnhanceYourCalm, limit.reason.debugData()}
		if limit.reason == CloseAge {
			e.code = errNo
		}
	default:
		return
	}
	c.endedBy = err
	c.appendGoAway(c.started, e.code, e.reason)
	c.kick()
}
