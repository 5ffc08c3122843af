package http2

import (
	"context"
	"net/http"
	"os"
	"time"
)

// SetReadDeadline sets the deadline of reads of the body. A deadline in the past ends a read in progress.
func (w *responseWriter) SetReadDeadline(at time.Time) error {
	st := w.stream
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	st.readDeadline.set(st, at)
	return nil
}

// SetWriteDeadline sets the deadline of writes. A deadline in the past resets the stream at once, a later one
// when a write exceeds it.
func (w *responseWriter) SetWriteDeadline(at time.Time) error {
	st := w.stream
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	st.writeDeadline.set(st, at)
	if st.writeDeadline.expired() {
		_ = st.writeTimedOut()
	}
	return nil
}

// set sets a deadline that has not passed. c.mu is held.
func (d *deadline) set(st *stream, at time.Time) {
	if d.exceeded {
		return
	}
	d.at = at
	d.stop()
	st.cond.Broadcast() // waiting goroutines start a new timer
}

// writeTimedOut resets a stream whose write deadline has passed. c.mu is held.
func (st *stream) writeTimedOut() error {
	st.conn.resetStream(st, st.resetCode, os.ErrDeadlineExceeded)
	return st.err
}

// BaseContext returns the context that ends with the stream, for SetContext.
func (w *responseWriter) BaseContext() context.Context { return w.stream.ctx.Context }

// SetContext replaces the context of the request, in place of a copy of the request with another one. ctx must be derived from BaseContext.
// The handler calls it at most once, before it passes the request to another goroutine.
func (w *responseWriter) SetContext(ctx context.Context) { w.stream.ctx.Context = ctx } //nolint:fatcontext // set once

// EnableFullDuplex does nothing: responses are always full duplex.
func (*responseWriter) EnableFullDuplex() error { return nil }

// StreamID returns the stream identifier.
func (w *responseWriter) StreamID() uint32 { return w.stream.id }

// Connection identifies the connection of the stream.
func (w *responseWriter) Connection() any { return w.stream.conn }

// Progress returns a number that changes when the client has received something of the response, or has opened
// the window of the stream.
func (w *responseWriter) Progress() int64 {
	c := w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	progress := w.stream.progress + c.writes
	if c.hooks.Accepted != nil {
		progress += c.hooks.Accepted()
	}
	return progress
}

// Observer receives the events of a response that its handler cannot see.
type Observer interface {
	// BeforeWait is called before a write waits for the client: for flow-control window, or because it does not read. It must not
	// wait or use the response.
	BeforeWait()
	// Sent is called when the handler has returned and the end of the response was queued, or the stream was reset: a client
	// that does not read lets the end wait.
	Sent()
}

// Observe sets the observer of the response. A handler calls it at most once, before it writes.
func (w *responseWriter) Observe(o Observer) { w.observer = o }

// beforeWait is called before a write waits. c.mu is held.
func (w *responseWriter) beforeWait() {
	if w.observer != nil {
		w.observer.BeforeWait()
	}
}

// ReleaseHeader releases the header of the response after it was sent, which Header then returns empty, for trailers.
func (w *responseWriter) ReleaseHeader() {
	if w.sentHeader && len(w.trailers) == 0 {
		w.header = nil
	}
}

// RefuseOnReset makes a write deadline reset the stream with REFUSED_STREAM, which clients retry, in place of
// INTERNAL_ERROR.
func (w *responseWriter) RefuseOnReset() {
	c := w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	w.stream.resetCode = errRefusedStream
}

// Push is not supported.
func (*responseWriter) Push(string, *http.PushOptions) error { return http.ErrNotSupported }
