package transport

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
)

// maxChunk is the size of a write to net/http, one HTTP/2 frame. A client that reads as much within
// the stall timeout is slow, not stalled. See madeProgress for smaller steps.
const maxChunk = 16 << 10

// bufferBytes is how many bytes net/http buffers before a write can block.
const bufferBytes = 2 << 10

// Exchange is one request and its response, below the handler. The handler uses it as its
// http.ResponseWriter; Cork and Uncork are for the writing goroutine.
type Exchange struct {
	http.ResponseWriter

	// A direct write needs these, which are one cache line with the response writer.
	written    atomic.Int64
	direct     direct
	unflushed  atomic.Bool // a write or a corked flush happened since the last flush
	collecting bool        // between BeginDirect and EndDirect

	text    *textEncoder // nil: not gRPC-Web text
	request *http.Request
	started time.Time

	// writeOps counts starts and ends of writes, and is odd during a write. The guard compares it
	// between sweeps, so a write does not read the clock.
	writeOps   atomic.Uint64
	corked     atomic.Bool
	streaming  atomic.Bool // the response is a stream
	observing  bool        // BeforeWait and Sent are called
	stream     bool        // the request body is a stream; set before the guard lists the exchange
	panicked   bool        // the handler panicked
	status     int
	caller     string
	memory     budget.Reservation
	slot       fair.Slot
	buffer     int         // upper bound of the bytes in net/http's buffer
	conn       *serverConn // nil: not accepted by Listener
	headers    int64       // header bytes counted in conn.memory.headers
	overloaded bool        // no memory for the request
	system     bool        // the request has reserved memory, which it must not hold for long

	messages    *messages   // nil: not written in whole messages
	waitAborted atomic.Bool // a wait for flow-control window was aborted
	stalled     atomic.Bool // a write was aborted by the stall timeout

	// bodyWait is the start of the wait for the rest of the body, in nanoseconds after started,
	// plus one; 0: no wait.
	bodyWait     atomic.Int64
	bodyReads    atomic.Int64 // number of reads that returned body bytes
	bodyBegun    bool         // the body was read: a client that expects 100 Continue sends it; guarded by readMu
	bodyUnread   atomic.Bool  // the body was not read to its end
	readMu       sync.Mutex   // held during reads of the body
	body         io.Reader    // the body as read by net/http
	invalidBody  atomic.Bool  // the client sent an invalid body
	bodyTimedOut atomic.Bool  // aborted by the body timeout

	mu           sync.Mutex    // guards control outside the handler's goroutine
	returned     bool          // the handler returned: control must not be used
	readAborted  bool          // reading was aborted
	writeAborted bool          // writing was aborted
	connClosed   bool          // the connection was closed by the guard
	abortWait    chan struct{} // closed to abort a wait for flow-control window; nil: no wait

	// Guarded by Guard.mu. Times are relative to started.
	sweepOps       uint64
	sweepSince     time.Duration
	sweepReads     int64
	sweepBodySince time.Duration // 0: none
	progress       progress
	prev, next     *Exchange
}

// control returns the controller of the response. It is not a field, because a stream has an exchange as long as it is open.
func (x *Exchange) control() *http.ResponseController {
	return http.NewResponseController(x.ResponseWriter)
}

// Status returns the HTTP status of the response: 200 if the handler set none, 500 if it panicked.
// It must be called on the handler's goroutine.
func (x *Exchange) Status() int {
	switch {
	case x.panicked:
		return http.StatusInternalServerError
	case x.status == 0:
		return http.StatusOK
	}
	return x.status
}

// InvalidBody reports whether the client sent an invalid request body.
func (x *Exchange) InvalidBody() bool { return x.invalidBody.Load() }

// Panicked reports whether the handler panicked. It must be called on the handler's goroutine,
// after it ended.
func (x *Exchange) Panicked() bool { return x.panicked }

// MarkPanicked records a panic that was recovered with a response. It must be called on the
// handler's goroutine, like Started.
func (x *Exchange) MarkPanicked() { x.panicked = true }

// Started reports whether any part of the response was written.
func (x *Exchange) Started() bool {
	return x.status != 0 || x.writeOps.Load() > 0 || x.unflushed.Load()
}

// Memory returns the reservation of the request. It is released when the handler has returned.
func (x *Exchange) Memory() *budget.Reservation { return &x.memory }

// smallBytes is the size of messages that the base memory of a request covers.
const smallBytes = 4 << 10

// isSmall reports whether the request needs no more than the base memory of a request. Others run before a request that
// is not small goes on, so that the garbage of such requests does not grow faster than it is collected.
func (x *Exchange) isSmall() bool {
	return x.memory.Held(budget.Message)+x.memory.Held(budget.Decompressed)+x.memory.Held(budget.Response) <= smallBytes
}

// CallerKey returns the caller that the request is accounted to: its address, or the caller of MoveTo.
func (x *Exchange) CallerKey() string { return x.caller }

// Written returns the number of bytes written.
func (x *Exchange) Written() int64 { return x.written.Load() }

// Slot returns the scheduler slot of the handler.
func (x *Exchange) Slot() *fair.Slot { return &x.slot }

// StartTime returns the time when the handler was called.
func (x *Exchange) StartTime() time.Time { return x.started }

// Unwrap is for http.ResponseController.
func (x *Exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends the header with the status.
func (x *Exchange) WriteHeader(status int) {
	if x.status == 0 && status >= http.StatusOK {
		x.status = status
		if x.text != nil {
			x.text.setType(x.Header())
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write writes p, encoded for gRPC-Web text.
func (x *Exchange) Write(p []byte) (int, error) {
	if x.IsDirect() {
		x.direct.written = append(x.direct.written, p...)
		return len(p), nil
	}
	if x.messages != nil {
		return x.writeMessages(p)
	}
	if x.text == nil {
		return x.write(p)
	}
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	return x.text.encode(p, writerFunc(x.write))
}

// endText writes the padding of gRPC-Web text.
func (x *Exchange) endText() error {
	if x.text == nil {
		return nil
	}
	return x.text.pad(writerFunc(x.write))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// write writes in chunks, so that the guard observes progress.
func (x *Exchange) write(p []byte) (int, error) {
	x.unflushed.Store(true)
	written := 0
	for {
		chunk := p[written:min(written+maxChunk, len(p))]
		x.written.Add(int64(len(chunk)))
		if x.buffer += len(chunk); x.buffer > bufferBytes && !x.observing {
			x.slot.Release() // the next write can block
		}
		x.writeOps.Add(1)
		n, err := x.ResponseWriter.Write(chunk)
		x.writeOps.Add(1)
		written += n
		if err != nil || written == len(p) {
			return written, x.writeError(err)
		}
	}
}

// Flush flushes the response unless it is corked.
func (x *Exchange) Flush() { _ = x.FlushError() }

// FlushError is Flush with an error.
func (x *Exchange) FlushError() error {
	if x.IsDirect() {
		return nil
	}
	if x.corked.Load() {
		x.unflushed.Store(true) // Uncork flushes, even if only a header is pending
		return nil
	}
	if err := x.endText(); err != nil {
		return err
	}
	x.unflushed.Store(false)
	if x.status == 0 && x.text != nil {
		x.WriteHeader(http.StatusOK)
	}
	x.slot.Release()
	x.buffer = 0
	x.writeOps.Add(1)
	err := x.control().Flush()
	x.writeOps.Add(1)
	return x.writeError(err)
}

// BeforeWait implements [http2.Observer].
func (x *Exchange) BeforeWait() { x.slot.Release() }

// Sent implements [http2.Observer].
func (x *Exchange) Sent() { x.memory.Release() }

// writeError returns StalledError for an error of a write that the guard aborted.
func (x *Exchange) writeError(err error) error {
	if err != nil && x.stalled.Load() {
		return &StalledError{}
	}
	return err
}

// Cork suppresses flushes until Uncork. Writes are buffered until net/http's buffer is full. It
// marks the response as a stream.
func (x *Exchange) Cork() {
	x.direct.turn = x.written.Load()
	x.corked.Store(true)
	x.MarkStreaming()
}

// MarkStreaming marks the response as a stream, which the client can resume on another server.
func (x *Exchange) MarkStreaming() {
	if !x.streaming.Load() {
		x.streaming.Store(true)
		x.wholeMessages()
	}
}

// IsCorked reports whether the stream has more to write before it waits.
func (x *Exchange) IsCorked() bool { return x.corked.Load() }

// Uncork flushes pending data, enables flushes and releases the slot.
func (x *Exchange) Uncork() {
	x.slot.Release()
	x.corked.Store(false)
	if x.unflushed.Load() {
		x.Flush()
	}
	if own, ok := x.ResponseWriter.(headerControl); ok {
		own.ReleaseHeader() // a stream that waits keeps no header
	}
}

// startBodyTimeout starts the timeout of the rest of the body.
func (x *Exchange) startBodyTimeout() {
	x.bodyWait.CompareAndSwap(0, int64(time.Since(x.started))+1)
}

func (x *Exchange) stopBodyTimeout() { x.bodyWait.Store(0) }

func (x *Exchange) bodyEnded() {
	x.bodyUnread.Store(false)
	x.bodyWait.Store(0)
}

// finish sets deadlines after the handler returned, when the guard can no longer use the
// controller: for the output that net/http has buffered (over HTTP/1.1 also the last chunk), and
// for the rest of an HTTP/1.1 body. net/http may read that before it sends the response, so its
// deadline is the shorter one. Errors are ignored.
func (x *Exchange) finish(stall, body time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if (x.unflushed.Load() || x.request.ProtoMajor == 1) && !x.writeAborted {
		_ = x.control().SetWriteDeadline(time.Now().Add(stall))
	}
	if x.request.ProtoMajor == 1 && x.bodyUnread.Load() && !x.readAborted {
		_ = x.control().SetReadDeadline(time.Now().Add(min(body, stall/2)))
	}
	x.returned = true
}

// abortWrite makes a blocked write fail, and all later ones. A wait for flow-control window fails
// with StalledError, and the handler can send trailers. Otherwise the stream is reset with
// REFUSED_STREAM, which clients retry, and the write fails with StalledError if stalled is set.
func (x *Exchange) abortWrite(count func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.returned || x.writeAborted {
		return false
	}
	if x.abortWait != nil {
		if x.waitAborted.Swap(true) {
			return false
		}
		count()
		close(x.abortWait)
		return true
	}
	x.writeAborted = true
	count()
	if stream := x.streamOf(); stream != nil {
		stream.RefuseOnReset()
	}
	return x.control().SetWriteDeadline(pastDeadline) == nil
}

// closeConn closes the connection with all its streams.
func (x *Exchange) closeConn() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conn == nil || x.returned || x.connClosed {
		return false
	}
	x.connClosed = true
	return x.conn.Close() == nil
}

// connKey is the context key of the connection.
type connKey struct{}

// StopReading makes pending and later reads of the request body fail. It is safe for concurrent
// use, also after the handler has returned.
func (x *Exchange) StopReading() { _ = x.abortRead(func() {}) }

// StopWriting makes pending and later writes of the response fail. It is safe for concurrent use,
// also after the handler has returned.
func (x *Exchange) StopWriting() { _ = x.abortWrite(func() {}) }

// abortRead makes reads of the body fail. count is called first, so that the counter is updated
// before the failure is visible.
func (x *Exchange) abortRead(count func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.returned || x.readAborted {
		return false
	}
	x.readAborted = true
	count()
	return x.control().SetReadDeadline(pastDeadline) == nil
}
