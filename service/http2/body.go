package http2

import (
	"io"
	"net/http"
	"os"
	"sync"
)

// maxTrailers bounds the trailers of a request, which are kept as long as its handler runs, but are not known when it starts.
const maxTrailers = 4 << 10

// requestBody is the body of a request. One goroutine reads it.
type requestBody struct {
	stream        *stream
	needsContinue bool
	ended         bool // Read returned io.EOF
}

// Read returns received bytes, and waits if there are none.
func (b *requestBody) Read(p []byte) (n int, err error) {
	if b.ended {
		return 0, io.EOF
	}
	st := b.stream
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.needsContinue {
		b.needsContinue = false
		st.w.sendContinue()
	}
	for {
		switch {
		case st.readDeadline.expired():
			return 0, os.ErrDeadlineExceeded
		case len(st.unread) > st.unreadFrom:
			return st.read(p), nil
		case st.recvClosed && !st.bodyDropped:
			b.ended = true
			st.copyTrailers()
			return 0, io.EOF
		case st.err != nil:
			return 0, st.err
		case st.bodyClosed:
			return 0, http.ErrBodyReadAfterClose
		case len(p) == 0:
			return 0, nil
		}
		st.readDeadline.wait(st)
	}
}

// Received reports whether the whole body has been received: Read does not wait then.
func (b *requestBody) Received() bool {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return b.stream.recvClosed
}

// Buffered returns the number of bytes that can be read without waiting.
func (b *requestBody) Buffered() int {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(b.stream.unread) - b.stream.unreadFrom
}

// Close discards the rest of the body.
func (b *requestBody) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discardUnread(b.stream)
	b.stream.bodyDropped = true
	b.stream.cond.Broadcast()
	return nil
}

// copyTrailers copies the declared trailers to the request. c.mu is held.
func (st *stream) copyTrailers() {
	for name, values := range st.trailer {
		if _, declared := st.req.Trailer[name]; declared {
			st.req.Trailer[name] = values
		}
	}
}

// trailers handles the trailers of a request (section 8.1).
func (c *conn) trailers(st *stream, b *headerBlock) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case st.recvClosed:
		return streamError{st.id, errStreamClosed, "HEADERS after END_STREAM"}
	case !b.endStream:
		return streamError{st.id, errProtocol, "trailers without END_STREAM"}
	case b.malformed != "" || b.hasPseudo:
		return streamError{st.id, errProtocol, "malformed trailers"}
	case b.tooLarge, len(st.req.Trailer) > 0 && b.size > maxTrailers:
		return streamError{st.id, errEnhanceYourCalm, "trailers exceed the limit"}
	}
	if len(st.req.Trailer) > 0 {
		st.trailer = b.header()
	}
	return c.endRequest(st)
}

// endRequest handles END_STREAM. c.mu is held.
func (c *conn) endRequest(st *stream) error {
	if st.declared >= 0 && st.received != st.declared {
		return streamError{st.id, errProtocol, "body is shorter than its Content-Length"}
	}
	st.recvClosed = true
	st.cond.Broadcast()
	if c.pending == st {
		return c.start(st)
	}
	return nil
}

// data handles DATA (section 6.1). c.mu is held.
func (c *conn) data(h frameHeader, p []byte) error {
	size := int64(h.length)
	switch {
	case h.stream == 0 || c.isIdle(h.stream):
		return connError{errProtocol, "DATA on an idle stream"}
	case size > c.recvWindow:
		return connError{errFlowControl, "DATA exceeds the window of the connection"}
	}
	p, err := unpad(h, p)
	if err != nil {
		return err
	}
	c.recvWindow -= size
	c.hooks.Meter.Unread(size)
	c.received = true
	st := c.streams[h.stream]
	if st == nil || st.recvClosed {
		c.creditConn(size)
		if st == nil && c.closed.find(h.stream) == closedByServer {
			c.budget.lateData++
			return nil
		}
		return streamError{h.stream, errStreamClosed, "DATA on a closed stream"}
	}
	st.received += int64(len(p))
	switch {
	case size > st.recvWindow:
		c.creditConn(size)
		return streamError{h.stream, errFlowControl, "DATA exceeds the window of the stream"}
	case st.declared >= 0 && st.received > st.declared:
		c.creditConn(size)
		return streamError{h.stream, errProtocol, "body is longer than its Content-Length"}
	}
	st.recvWindow -= size
	padding := size - int64(len(p))
	if st.bodyClosed { // no credit for the stream: the client should stop
		c.creditConn(size)
	} else {
		st.append(p)
		if padding > 0 {
			c.creditConn(padding)
			c.creditStream(st, padding)
		}
	}
	if h.has(flagEndStream) {
		return c.endRequest(st)
	}
	st.cond.Broadcast()
	return nil
}

// append adds received bytes to the unread ones. c.mu is held.
func (st *stream) append(p []byte) {
	if st.unreadFrom > 0 && len(st.unread)+len(p) > cap(st.unread) {
		st.unread = st.unread[:copy(st.unread, st.unread[st.unreadFrom:])]
		st.unreadFrom = 0
	}
	if need := len(st.unread) + len(p); need > cap(st.unread) {
		larger := append(getBody(need), st.unread...)
		putBody(st.unread)
		st.unread = larger
	}
	st.unread = append(st.unread, p...)
}

// shrinkUnread moves what is left of a large buffer to a small one: it may stay unread as long as the stream is open. c.mu is held.
func (st *stream) shrinkUnread() {
	left := st.unread[st.unreadFrom:]
	var smaller []byte
	switch class := bodyClass(cap(st.unread)); {
	case len(left) == 0, len(left) <= len(st.inline) && cap(st.unread) > len(st.inline):
		smaller = st.inline[:0]
	case bodyClass(len(left))+1 < class:
		smaller = getBody(len(left))
	default:
		return
	}
	smaller = append(smaller, left...)
	putBody(st.unread)
	st.unread, st.unreadFrom = smaller, 0
}

// bodies are the pools of buffers of unread bytes, of 4 to 64 KiB. A buffer is at most twice as large as its content was.
var bodies [5]sync.Pool

const smallBody = 4 << 10

// bodyClass returns the index of the smallest buffer of n bytes in bodies, or len(bodies).
func bodyClass(n int) int {
	class := 0
	for class < len(bodies) && n > smallBody<<class {
		class++
	}
	return class
}

func getBody(n int) []byte {
	class := bodyClass(n)
	if class == len(bodies) {
		return make([]byte, 0, n)
	}
	if b, ok := bodies[class].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, smallBody<<class)
}

// putBody puts back a buffer of getBody. Other slices are ignored.
func putBody(b []byte) {
	if class := bodyClass(cap(b)); class < len(bodies) && cap(b) == smallBody<<class {
		b = b[:0]
		bodies[class].Put(&b)
	}
}
