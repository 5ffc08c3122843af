package transport

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
)

// pieceBytes is the most that is handed to net/http at once. A reader that takes
// this much within the stall limit is slow, not stalled; it is one HTTP/2 frame. Of
// HTTP/2 the guard sees when less is taken, too.
const pieceBytes = 16 << 10

// bufferBytes is how much net/http buffers before a write may wait for the peer.
const bufferBytes = 2 << 10

// Exchange is one request and its answer, seen from below the handler. As an
// http.ResponseWriter it is used by the handler; Hold and Release are for the
// goroutine that writes.
type Exchange struct {
	http.ResponseWriter

	control *http.ResponseController
	request *http.Request
	born    time.Time

	// ops counts the beginnings and ends of writes: it is odd while one goes on. The
	// guard compares it from sweep to sweep, so a write costs no look at the clock.
	ops     atomic.Uint64
	held    atomic.Bool
	unsent  atomic.Bool // something was written, or a flush held, since the last flush
	stream  bool        // the body is a stream; set before the guard knows of it
	flows   atomic.Bool // the answer is a stream
	status  int
	broken  bool // the handler has panicked
	memory  budget.Reservation
	slot    fair.Slot
	written int64
	buffer  int          // bytes that net/http has buffered since the last flush, at most
	conn    *gatherConn  // nil: the listener is another one
	headers int64        // of the request, as its connection counts them
	short   bool         // there is no memory for the request
	text    *textEncoder // nil: the response is not in the text form of gRPC-Web

	messages *messages   // nil: the response is not sent in whole messages
	aborted  atomic.Bool // a write that waited for room was ended

	// due is when the rest of the body has begun to be waited for, as nanoseconds
	// after born and one; 0: it is not waited for.
	due      atomic.Int64
	came     atomic.Int64 // how often something of the body has come
	bodyLeft atomic.Bool  // the body has not been read to its end
	reading  sync.Mutex   // held while the body is read
	rest     io.Reader    // the body as the connection brings it
	badBody  atomic.Bool  // the caller got the body wrong
	late     atomic.Bool  // the guard has ended the reading since the body did not come

	mu       sync.Mutex    // held while the controller is used by others than the handler
	over     bool          // the handler has returned: the controller is not to be touched
	cutRead  bool          // the guard has ended the reading
	cutWrite bool          // the guard has ended the writing
	cutConn  bool          // the guard has closed the connection
	abort    chan struct{} // closed to end a write that waits for room; nil: none does

	// The guard's own, under its lock.
	sweepOps   uint64
	sweepSince time.Time
	sweepCame  int64
	sweepDue   time.Time
	progress   *progress // nil: no write has stood still yet
	prev, next *Exchange
}

// Status is the HTTP status of the answer, 200 where the handler named none, and 500
// where it panicked, whatever it had sent by then. It is to be asked for by the
// handler's goroutine.
func (x *Exchange) Status() int {
	switch {
	case x.broken:
		return http.StatusInternalServerError
	case x.status == 0:
		return http.StatusOK
	}
	return x.status
}

// BadBody reports whether the caller got the body of the request wrong.
func (x *Exchange) BadBody() bool { return x.badBody.Load() }

// Broken reports whether the handler has panicked. It is to be asked for when it has
// ended, by its goroutine.
func (x *Exchange) Broken() bool { return x.broken }

// Break notes that the handler has panicked although its caller gets an answer. It is
// for the handler's goroutine, as Begun is.
func (x *Exchange) Break() { x.broken = true }

// Begun reports whether anything of the answer was given out.
func (x *Exchange) Begun() bool { return x.status != 0 || x.ops.Load() > 0 || x.unsent.Load() }

// Memory returns what the request has reserved. It is released when the handler has
// returned.
func (x *Exchange) Memory() *budget.Reservation { return &x.memory }

// Written is how many bytes the handler has written. It belongs to the goroutine that writes.
func (x *Exchange) Written() int64 { return x.written }

// Slot is the slot of the scheduler that the handler runs in.
func (x *Exchange) Slot() *fair.Slot { return &x.slot }

// Born is when the request came in.
func (x *Exchange) Born() time.Time { return x.born }

// Unwrap gives the next writer, for http.ResponseController.
func (x *Exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends the status.
func (x *Exchange) WriteHeader(status int) {
	if x.status == 0 && status >= http.StatusOK {
		x.status = status
		if x.text != nil {
			x.text.setType(x.Header())
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write writes to the response, in its text form if that was asked for.
func (x *Exchange) Write(p []byte) (int, error) {
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

// endText writes what is left of the text form.
func (x *Exchange) endText() error {
	if x.text == nil {
		return nil
	}
	return x.text.pad(writerFunc(x.write))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// write writes in pieces, so that the guard sees a slow reader's progress.
func (x *Exchange) write(p []byte) (int, error) {
	x.unsent.Store(true)
	written := 0
	for {
		piece := p[written:min(written+pieceBytes, len(p))]
		x.written += int64(len(piece))
		if x.buffer += len(piece); x.buffer > bufferBytes {
			x.slot.Release() // what follows is to be written, too
		}
		x.ops.Add(1)
		n, err := x.ResponseWriter.Write(piece)
		x.ops.Add(1)
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// Flush sends what was written, unless it is held.
func (x *Exchange) Flush() { _ = x.FlushError() }

// FlushError is Flush with its error.
func (x *Exchange) FlushError() error {
	if x.held.Load() {
		x.unsent.Store(true) // Release owes it: there may be a header to send, and no more
		return nil
	}
	if err := x.endText(); err != nil {
		return err
	}
	x.unsent.Store(false)
	if x.status == 0 && x.text != nil {
		x.WriteHeader(http.StatusOK)
	}
	x.slot.Release()
	x.buffer = 0
	x.ops.Add(1)
	err := x.control.Flush()
	x.ops.Add(1)
	return err
}

// Hold keeps what is written from now on until Release, or until net/http's buffer
// is full: every Flush in between does nothing. Only a stream holds.
func (x *Exchange) Hold() {
	x.held.Store(true)
	x.Flows()
}

// Flows notes that the answer is a stream, which its reader can resume elsewhere.
func (x *Exchange) Flows() {
	if !x.flows.Load() {
		x.flows.Store(true)
		x.wholeMessages()
	}
}

// Release sends what was kept and lets every further Flush through.
func (x *Exchange) Release() {
	x.held.Store(false)
	if x.unsent.Load() {
		x.Flush()
	}
}

// bodyDue notes that the body has to come soon from now on.
func (x *Exchange) bodyDue() {
	x.due.CompareAndSwap(0, int64(time.Since(x.born))+1)
}

func (x *Exchange) bodyClosed() { x.due.Store(0) }

func (x *Exchange) bodyEnded() {
	x.bodyLeft.Store(false)
	x.due.Store(0)
}

// finish ends the exchange when the handler has returned. What net/http still has to
// send, which of HTTP/1.1 is the last chunk even if all was flushed, and what it still
// reads of an HTTP/1.1 body, is bounded by deadlines of its own, since nobody may touch
// the controller from here on. An error of theirs leaves the rest only less guarded.
// net/http may read the rest of the body first, so that its deadline is the shorter one:
// the answer must not be too late by then.
func (x *Exchange) finish(stall, body time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if (x.unsent.Load() || x.request.ProtoMajor == 1) && !x.cutWrite {
		_ = x.control.SetWriteDeadline(time.Now().Add(stall))
	}
	if x.request.ProtoMajor == 1 && x.bodyLeft.Load() && !x.cutRead {
		_ = x.control.SetReadDeadline(time.Now().Add(min(body, stall/2)))
	}
	x.over = true
}

// endWrite makes the write that is in progress fail, and every further one. A write that
// waits for room fails with StalledError, and the handler can still send trailers. Any
// other leaves no way to say why: the stream is reset, with a code that clients retry.
func (x *Exchange) endWrite(count func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.cutWrite {
		return false
	}
	if x.abort != nil {
		if x.aborted.Swap(true) {
			return false
		}
		count()
		close(x.abort)
		return true
	}
	x.cutWrite = true
	count()
	if stream := streamOf(x.ResponseWriter); stream != 0 && x.conn != nil && x.conn.windows != nil {
		x.conn.windows.retriable(stream)
	}
	return x.control.SetWriteDeadline(longAgo) == nil
}

// closeConn closes the connection below, and with it all that goes on there.
func (x *Exchange) closeConn() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	conn, ok := x.request.Context().Value(netConn{}).(net.Conn)
	if !ok || x.over || x.cutConn {
		return false
	}
	x.cutConn = true
	return conn.Close() == nil
}

// netConn is the key of the connection in the context of its requests.
type netConn struct{}

// StopReading makes the Read of the body that waits fail, and every further one. It is
// safe for any goroutine, also when the handler has returned.
func (x *Exchange) StopReading() { _ = x.endRead(func() {}) }

// StopWriting makes the Write that goes on fail, and every further one. It is safe for
// any goroutine, also when the handler has returned.
func (x *Exchange) StopWriting() { _ = x.endWrite(func() {}) }

// endRead makes the reading of the body fail. It counts before, so that whoever sees
// the failure sees it counted.
func (x *Exchange) endRead(count func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.cutRead {
		return false
	}
	x.cutRead = true
	count()
	return x.control.SetReadDeadline(longAgo) == nil
}
