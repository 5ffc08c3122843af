package transport

import (
	"io"
	"time"
)

const (
	// discardTimeout and maxDiscard bound the discarded rest of a request whose handler has
	// returned.
	discardTimeout = 100 * time.Millisecond
	maxDiscard     = 64 << 10
)

// discardBody reads the rest of a request whose handler has returned. Otherwise net/http ends the
// response with RST_STREAM over HTTP/2, and closes the connection over HTTP/1.1. Proxies forward
// the reset in place of the response. The rest of a unary request usually arrives within
// milliseconds; for an open stream the timeout ends the wait.
func (x *Exchange) discardBody(timeout time.Duration) {
	if !x.readMu.TryLock() {
		return // another goroutine of the handler is reading
	}
	defer x.readMu.Unlock()
	if !x.bodyUnread.Load() || x.request.Header.Get("Expect") != "" || !x.setReadDeadline(time.Now().Add(timeout)) {
		return
	}
	if n, err := io.CopyN(io.Discard, x.body, maxDiscard); err == io.EOF && n < maxDiscard { //nolint:errorlint // documented as a sentinel
		x.bodyEnded()
	}
	x.setReadDeadline(time.Time{})
}

// setReadDeadline sets the read deadline of the body. It returns false if the exchange was aborted.
func (x *Exchange) setReadDeadline(deadline time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.readAborted && !x.writeAborted && !x.connClosed && x.control().SetReadDeadline(deadline) == nil
}
