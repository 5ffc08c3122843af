package http2

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// writeBuffer is the size of the buffer of a response.
const writeBuffer = 4 << 10

var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, writeBuffer)
	return &b
}}

// responseWriter is the http.ResponseWriter of a stream. Fields belong to the handler's goroutine.
type responseWriter struct {
	stream      *stream
	wroteHeader bool
	sentHeader  bool
	ended       bool   // the handler returned
	head        bool   // the request is HEAD
	buf         []byte // not yet queued
	written     int64
	header      http.Header
	first       []byte // first bytes of the body, of which the type is detected
	status      int
	snapshot    fields   // header as of WriteHeader, until it is queued
	trailers    []string // declared names
	length      int64    // Content-Length; -1: unknown
	observer    Observer // nil: none
}

func (w *responseWriter) init(st *stream) {
	w.stream, w.length = st, -1
	w.head = st.req.Method == http.MethodHead
}

// Header returns the header of the response, and the trailers after it was sent.
func (w *responseWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	return w.header
}

// WriteHeader sets the status, or sends an informational response.
func (w *responseWriter) WriteHeader(status int) {
	if w.wroteHeader {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if status < http.StatusOK {
		c := w.stream.conn
		c.mu.Lock()
		defer c.mu.Unlock()
		if status == http.StatusContinue {
			w.stream.body.needsContinue = false
		}
		if !w.stream.closed {
			c.appendInformational(w.stream.id, status, w.header)
			c.kick()
		}
		return
	}
	w.wroteHeader, w.status = true, status
	w.snapshot = fieldsOf(w.header)
	if lengths := w.snapshot.get("Content-Length"); len(lengths) > 0 {
		if n, err := strconv.ParseInt(lengths[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		} else {
			w.snapshot = w.snapshot.without("Content-Length")
		}
	}
	for _, list := range w.snapshot.get("Trailer") {
		for name := range strings.SplitSeq(list, ",") {
			w.declareTrailer(textproto.TrimString(name))
		}
	}
}

// bodyAllowed reports whether a status allows a body.
func bodyAllowed(status int) bool {
	return status >= http.StatusOK && status != http.StatusNoContent && status != http.StatusNotModified
}

// Write buffers p, or queues it if it exceeds the buffer.
func (w *responseWriter) Write(p []byte) (int, error) {
	if err := w.beforeWrite(len(p)); err != nil {
		return 0, err
	}
	if len(w.buf)+len(p) <= writeBuffer {
		if w.buf == nil {
			w.buf = *writeBuffers.Get().(*[]byte) //nolint:errcheck // the pool has no other type
		}
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	c := w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w.buf) == 0 {
		w.first = p
	}
	if err := w.sendBuffer(); err != nil {
		return 0, err
	}
	n, err := w.sendData(p, false)
	if err == nil && len(c.out) >= maxChunk {
		c.kick()
	}
	return n, err
}

func (w *responseWriter) beforeWrite(n int) error {
	switch {
	case w.ended:
		return errHandlerEnded
	case !w.wroteHeader:
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return http.ErrBodyNotAllowed
	}
	if w.written += int64(n); w.length >= 0 && w.written > w.length {
		return http.ErrContentLength
	}
	return nil
}

// Flush is FlushError without an error.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError queues what was written and makes it be sent. It does not wait until it was sent.
func (w *responseWriter) FlushError() error {
	if w.ended {
		return errHandlerEnded
	}
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	c := w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := w.sendBuffer(); err != nil {
		return err
	}
	c.kick()
	return nil
}

// sendBuffer queues the header and the buffer. c.mu is held.
func (w *responseWriter) sendBuffer() error {
	if err := w.sendHeader(false); err != nil {
		return err
	}
	if len(w.buf) > 0 {
		if _, err := w.sendData(w.buf, false); err != nil {
			return err
		}
	}
	w.releaseBuffer()
	return nil
}

func (w *responseWriter) releaseBuffer() {
	if w.buf != nil {
		buf := w.buf[:0]
		w.buf = nil
		writeBuffers.Put(&buf)
	}
}

// sendData queues DATA frames. c.mu is held; it is released while there is no window or no room.
func (w *responseWriter) sendData(p []byte, end bool) (sent int, err error) {
	st := w.stream
	c := st.conn
	if w.head {
		return len(p), st.err
	}
	for sent < len(p) {
		n, err := c.awaitSend(st, len(p)-sent)
		if err != nil {
			return sent, err
		}
		flags := uint8(0)
		if end && sent+n == len(p) {
			flags = flagEndStream
		}
		c.out = append(appendFrameHeader(c.output(), n, frameData, flags, st.id), p[sent:sent+n]...)
		c.sent(st, n)
		sent += n
	}
	return sent, nil
}

// TryWrite queues p as one DATA frame, if there is window and room for it and nothing is buffered. It does not wait. If kick is true, the
// caller must call Kick; if not, p is sent without it. Other goroutines than the handler's may call it while the handler does not write.
func (w *responseWriter) TryWrite(p []byte) (queued, kick bool) {
	st := w.stream
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(len(p))
	if st.err != nil || w.ended || w.head || !w.sentHeader || len(w.buf) > 0 || len(p) > smallWrite ||
		st.sendWindow()-st.reserved < n || c.sendWindow-c.sendReserved < n || !c.canQueue(len(p)) {
		return false, false
	}
	c.out = append(appendFrameHeader(c.output(), len(p), frameData, 0, st.id), p...)
	c.sent(st, len(p))
	w.written += n
	kick = !c.writing && !c.kickDue
	c.kickDue = c.kickDue || kick
	return true, kick
}

// Kick makes the queued output of the connection be sent. Any goroutine may call it, also after the end of the stream.
func (w *responseWriter) Kick() {
	c := w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kickDue = false
	c.kick()
}

// sendHeader queues the header, if it was not. c.mu is held.
func (w *responseWriter) sendHeader(end bool) error {
	if w.sentHeader {
		return w.stream.err
	}
	st := w.stream
	if err := st.conn.awaitRoom(st); err != nil {
		return err
	}
	w.sentHeader, st.headerQueued = true, true
	if w.snapshot.first("Connection") == "close" {
		st.conn.startShutdown()
	}
	if w.first == nil {
		w.first = w.buf
	}
	st.conn.appendResponse(w, end)
	w.first, w.snapshot = nil, nil
	return nil
}

func (w *responseWriter) declareTrailer(name string) {
	name = http.CanonicalHeaderKey(name)
	if httpguts.ValidTrailerHeader(name) && !slices.Contains(w.trailers, name) {
		w.trailers = append(w.trailers, name)
	}
}

// promoteTrailers declares the fields with http.TrailerPrefix.
func (w *responseWriter) promoteTrailers() {
	for name, values := range w.header {
		if bare, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			bare = http.CanonicalHeaderKey(bare)
			w.declareTrailer(bare)
			w.header[bare] = values
		}
	}
}

// hasTrailers reports whether the response ends with trailers. That to HEAD ends with its header.
func (w *responseWriter) hasTrailers() bool {
	if w.head {
		return false
	}
	for _, name := range w.trailers {
		if len(w.header[name]) > 0 {
			return true
		}
	}
	return false
}

// finish queues the rest of the response: for most responses HEADERS, DATA and trailers at once.
func (w *responseWriter) finish() {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	w.promoteTrailers()
	st := w.stream
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	w.ended = true
	switch err := st.sendRest(); {
	case err != nil:
		c.resetStream(st, st.resetCode, err)
	case !st.recvClosed: // the rest of the request is not needed (section 8.1)
		c.appendReset(st.id, errNo)
		c.closeStream(st, errHandlerEnded, closedByServer)
	default:
		c.closeStream(st, errHandlerEnded, closedNormally)
	}
	w.releaseBuffer()
}

// sendRest queues the end of the response. c.mu is held.
func (st *stream) sendRest() error {
	w := &st.w
	trailers := w.hasTrailers()
	noBody := len(w.buf) == 0 || w.head
	if !w.sentHeader {
		end := noBody && !trailers
		if err := w.sendHeader(end); err != nil || end {
			return err
		}
	}
	if !noBody {
		if _, err := w.sendData(w.buf, !trailers); err != nil || !trailers {
			return err
		}
	}
	if err := st.conn.awaitRoom(st); err != nil {
		return err
	}
	if trailers {
		st.conn.appendTrailers(w)
	} else {
		st.conn.out = appendFrameHeader(st.conn.output(), 0, frameData, flagEndStream, st.id)
	}
	return nil
}

// dateCache caches the field Date for a second.
type dateCache struct {
	mu     sync.Mutex
	second int64
	text   string
}

func (d *dateCache) get() string {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if second := now.Unix(); second != d.second || d.text == "" {
		d.second, d.text = second, now.UTC().Format(http.TimeFormat)
	}
	return d.text
}
