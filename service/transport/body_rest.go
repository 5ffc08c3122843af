package transport

import (
	"io"
	"time"
)

const (
	// restTimeout and restBytes bound what is read of a request whose handler has returned
	// before the request ended.
	restTimeout = 100 * time.Millisecond
	restBytes   = 64 << 10
)

// discardRest reads what is still on its way of a request whose handler has returned. A
// response that overtakes its request is followed by RST_STREAM in HTTP/2 and by the end of
// the connection in HTTP/1.1. That is what the protocols say, but proxies pass the reset on
// in place of the response, and the client of a refused call does not see why. The end of
// a request follows its header closely; one that is open-ended is left after a moment.
func (x *Exchange) discardRest(timeout time.Duration) {
	if !x.reading.TryLock() {
		return // a goroutine of the handler still waits for the body
	}
	defer x.reading.Unlock()
	if !x.bodyLeft.Load() || x.request.Header.Get("Expect") != "" || !x.readUntil(time.Now().Add(timeout)) {
		return
	}
	if n, err := io.CopyN(io.Discard, x.rest, restBytes); err == io.EOF && n < restBytes { //nolint:errorlint // the very value
		x.bodyEnded()
	}
	x.readUntil(time.Time{})
}

// readUntil sets the deadline of the body, unless the guard has ended the reading or the
// writing.
func (x *Exchange) readUntil(deadline time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.cutRead && !x.cutWrite && !x.cutConn && x.control.SetReadDeadline(deadline) == nil
}
