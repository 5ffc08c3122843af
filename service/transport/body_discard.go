package transport

import (
	"io"
	"time"

	"github.com/yourorg/userservice/service/budget"
)

const (
	// discardTimeout is the maximum time without progress while the rest of a request is discarded whose
	// handler has returned. discardStep is the progress; maxDiscard and maxDiscardTime bound the whole.
	discardTimeout = 100 * time.Millisecond
	discardStep    = 64 << 10
	maxDiscard     = 16 << 20
	maxDiscardTime = time.Second
)

// discardBody reads the rest of a request whose handler has returned. Otherwise net/http ends the
// response with RST_STREAM over HTTP/2, and closes the connection over HTTP/1.1. Proxies forward
// the reset in place of the response. The rest of a unary request usually arrives within
// milliseconds, that of a message over the limit within its transfer time; for an open stream the
// timeout ends the wait.
func (x *Exchange) discardBody(timeout time.Duration) {
	if !x.readMu.TryLock() {
		return // another goroutine of the handler is reading
	}
	defer x.readMu.Unlock()
	if x.system || !x.bodyUnread.Load() || !x.bodyBegun && x.request.Header.Get("Expect") != "" {
		return
	}
	began := time.Now()
	for total, n := int64(0), int64(discardStep); n == discardStep && total < maxDiscard && time.Since(began) < maxDiscardTime; total += n {
		if total > 0 && x.memory.Budget().Level() > budget.Normal {
			break // what arrives takes memory
		}
		if !x.setReadDeadline(time.Now().Add(timeout)) {
			return
		}
		var err error
		if n, err = io.CopyN(io.Discard, x.body, discardStep); err == io.EOF { //nolint:errorlint // documented as a sentinel
			x.bodyEnded()
		}
	}
	x.setReadDeadline(time.Time{})
}

// setReadDeadline sets the read deadline of the body. It returns false if the exchange was aborted.
func (x *Exchange) setReadDeadline(deadline time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.readAborted && !x.writeAborted && !x.connClosed && x.control().SetReadDeadline(deadline) == nil
}
