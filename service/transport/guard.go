package transport

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/protocol"
)

// pastDeadline is a deadline in the past. It unblocks a read or write.
var pastDeadline = time.Unix(1, 0)

// lowMemoryBodyTimeout is the body timeout under memory pressure.
const lowMemoryBodyTimeout = 2 * time.Second

// GuardOptions are the limits and callbacks of a Guard.
type GuardOptions struct {
	// StallTimeout aborts a response write without progress.
	StallTimeout time.Duration
	// BodyTimeout bounds the time of a request body. In a stream it bounds each message from its
	// first byte.
	BodyTimeout time.Duration
	// DiscardTimeout bounds the time for reading the rest of a request after its handler returned.
	// 0: 100 ms.
	DiscardTimeout time.Duration
	// MaxMessageBytes returns the limit of a request message before decompression.
	MaxMessageBytes func(*http.Request) int64
	// TooLarge returns the error for a message over the limit, BodyTimedOut the error for a body
	// that exceeded its timeout.
	TooLarge     func(r *http.Request, limit int64) error
	BodyTimedOut func() error
	// InvalidBody returns the error for an invalid body, a *connect.Error, which connect passes on.
	// nil: io.ErrUnexpectedEOF.
	InvalidBody func(kind BodyError, message string) error
	// Memory is the budget of requests; nil: no limit. A request starts in the account of its address,
	// whose class Class returns. It is required with Memory.
	Memory *budget.Budget
	Class  func(*http.Request) budget.Class
	// Overloaded returns the error for a message without memory. It is required with Memory.
	Overloaded func(*http.Request) error
	// Scheduler shares the processors among callers; nil: handlers run at once.
	Scheduler *fair.Scheduler
	// IsStream reports whether the request body is a stream, which has no timeout between messages.
	IsStream func(*http.Request) bool
	// Context, if set, returns the context of the handler, derived from ctx.
	Context func(ctx context.Context, r *http.Request, x *Exchange) context.Context
	// Recovered, if set, is called with the value of a panic of the handler, on its goroutine. It responds, or panics.
	Recovered func(*http.Request, *Exchange, any)
	// Done, if set, is called after the handler returned or panicked, on its goroutine.
	Done   func(*http.Request, *Exchange)
	Logger *slog.Logger
}

// Guard is the outermost middleware. It aborts stalled exchanges and limits request bodies. It is
// safe for concurrent use.
type Guard struct {
	opts         GuardOptions
	stalls       atomic.Int64
	bodyTimeouts atomic.Int64
	// drainTimeout is the shortened timeout of streaming writes and request bodies during a drain;
	// 0: no drain.
	drainTimeout atomic.Int64
	drainStart   atomic.Pointer[time.Time] // start of the drain; nil: no drain
	drainSignal  chan struct{}
	noKeepAlives atomic.Bool // HTTP/1.1 connections close after their next response

	mu             sync.Mutex
	first          *Exchange     // list of exchanges in progress
	streamsStopped bool          // StopStreams was called
	idle           chan struct{} // closed when the list is empty; nil: no WaitIdle is waiting

	stop    chan struct{}
	stopped chan struct{}
}

// NewGuard returns a guard. Its goroutine runs until Close.
func NewGuard(opts GuardOptions) *Guard {
	g := &Guard{
		opts: opts, drainSignal: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go g.run()
	return g
}

// ShortenTimeouts lowers the stall timeout of streaming writes and request bodies to grace,
// including for exchanges in progress. A draining server calls it because a handler blocked in
// Write cannot be notified. Unary responses are not affected, nor is a slow reader that makes
// progress. A grace above the stall timeout has no effect on writes.
func (g *Guard) ShortenTimeouts(grace time.Duration) {
	now := time.Now()
	g.drainStart.CompareAndSwap(nil, &now)
	g.drainTimeout.Store(max(int64(grace), 1))
	select {
	case g.drainSignal <- struct{}{}:
	default: // the pending signal applies to this grace too
	}
}

// DisableKeepAlives closes HTTP/1.1 connections after their next response, with "Connection:
// close": a later request could be lost when the server shuts down.
func (g *Guard) DisableKeepAlives() { g.noKeepAlives.Store(true) }

// stallTimeout returns the stall timeout of an exchange, which is shorter for a stream during a
// drain.
func (g *Guard) stallTimeout(x *Exchange) time.Duration {
	if timeout := time.Duration(g.drainTimeout.Load()); timeout > 0 && x.streaming.Load() {
		return min(timeout, g.opts.StallTimeout)
	}
	return g.opts.StallTimeout
}

// stalled reports whether an exchange without progress since a time has exceeded its stall timeout.
// The shorter timeout of a drain starts with the drain.
func (g *Guard) stalled(x *Exchange, since, now time.Time) bool {
	return now.Sub(since) >= g.opts.StallTimeout ||
		x.streaming.Load() && g.drainTimeout.Load() > 0 && now.Sub(g.sinceDrain(since)) >= g.stallTimeout(x)
}

// sinceDrain returns the later of since and the start of the drain.
func (g *Guard) sinceDrain(since time.Time) time.Time {
	if start := g.drainStart.Load(); start != nil && start.After(since) {
		return *start
	}
	return since
}

// Close stops the guard's goroutine. It must be called once, after the last request.
func (g *Guard) Close() {
	close(g.stop)
	<-g.stopped
}

// WaitIdle waits until no request is in progress, or returns the context's error. New requests must
// have been stopped before.
func (g *Guard) WaitIdle(ctx context.Context) error {
	g.mu.Lock()
	if g.first == nil {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// StopStreams aborts reading of all streaming request bodies, including those of later requests. A
// handler that waits for the next message of a client would not end during a drain.
func (g *Guard) StopStreams() {
	g.mu.Lock()
	g.streamsStopped = true
	var streams []*Exchange
	for x := g.first; x != nil; x = x.next {
		if x.stream {
			streams = append(streams, x)
		}
	}
	g.mu.Unlock()
	for _, x := range streams {
		x.StopReading()
	}
}

// StalledWrites returns the number of exchanges aborted by the stall timeout.
func (g *Guard) StalledWrites() int64 { return g.stalls.Load() }

// BodyTimeouts returns the number of exchanges aborted by the body timeout.
func (g *Guard) BodyTimeouts() int64 { return g.bodyTimeouts.Load() }

// Wrap returns next with the guard around it.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := g.begin(w, r)
		defer func() {
			panicValue := g.recovered(x, r, recover())
			g.end(x, r, panicValue)
			if panicValue != nil {
				panic(panicValue) // net/http aborts the exchange and logs the stack
			}
		}()
		if x.stream && x.conn.hasAge() { // a handler blocked in Receive does not observe its context
			defer context.AfterFunc(r.Context(), x.StopReading)()
		}
		x.slot.Acquire()
		if g.opts.Context != nil {
			r = g.withContext(x, r)
		}
		if r.ProtoMajor == 1 && g.noKeepAlives.Load() || x.conn.isOld() {
			w.Header().Set("Connection", "close")
		}
		g.limitBody(x, r)
		next.ServeHTTP(x, r)
	})
}

// withContext returns the request with the context of the handler: r itself if its context can be replaced.
func (g *Guard) withContext(x *Exchange, r *http.Request) *http.Request {
	if own, ok := x.ResponseWriter.(contextControl); ok {
		own.SetContext(g.opts.Context(own.BaseContext(), r, x)) //nolint:contextcheck // derived from the request's context
		return r
	}
	return r.WithContext(g.opts.Context(r.Context(), r, x)) //nolint:contextcheck,nolintlint // as above
}

// recovered returns the value with which a panic continues; nil: it does not.
func (g *Guard) recovered(x *Exchange, r *http.Request, value any) (left any) {
	if value == nil || g.opts.Recovered == nil {
		return value
	}
	defer func() { left = recover() }()
	g.opts.Recovered(r, x, value)
	return nil
}

// begin returns the exchange of a request. It is in the list, so that WaitIdle waits for it, although
// it has no slot yet.
func (g *Guard) begin(w http.ResponseWriter, r *http.Request) *Exchange {
	x := &Exchange{
		ResponseWriter: w, request: r, started: time.Now(), text: textForm(r),
	}
	conn, ok := r.Context().Value(connKey{}).(*serverConn)
	if x.caller = conn.peerKey(r.RemoteAddr); ok {
		conn.setTLS(r)
		conn.hasRequest.Store(true)
		conn.memory.beginRequest(conn.listener.now(), r.ProtoMajor == 1)
		x.conn = conn
	}
	if stream := x.streamOf(); stream != nil {
		x.observing = true
		stream.Observe(x)
	}
	if g.opts.Memory != nil {
		g.reserve(x, r)
	}
	x.stream = hasBody(r) && g.opts.IsStream(r)
	x.slot.Open(g.opts.Scheduler, x.caller)
	if g.add(x) && x.stream {
		x.StopReading()
	}
	return x
}

// end is called when the handler of the request has returned or panicked.
func (g *Guard) end(x *Exchange, r *http.Request, panicValue any) {
	// http.ErrAbortHandler aborts the connection intentionally.
	x.panicked = x.panicked || panicValue != nil && panicValue != http.ErrAbortHandler //nolint:errorlint // documented as a sentinel
	if !x.isSmall() || x.text != nil || x.bodyUnread.Load() {
		x.slot.Release()
	}
	if panicValue == nil {
		_ = x.endText() // the error is irrelevant, the handler has returned
		x.discardBody(cmp.Or(g.opts.DiscardTimeout, discardTimeout))
	}
	x.slot.Acquire()
	x.finish(g.stallTimeout(x), g.opts.BodyTimeout)
	if g.opts.Done != nil {
		g.opts.Done(r, x)
	}
	if !x.observing { // else what is buffered, and the goroutine, wait for a client that does not read
		x.memory.Release()
	}
	if x.conn != nil {
		x.conn.memory.headers.Add(-x.headers)
		x.conn.memory.endRequest(x.conn.listener.now())
	}
	x.slot.Close()
	g.remove(x)
}

// reserve opens the reservation of a request.
func (g *Guard) reserve(x *Exchange, r *http.Request) {
	var parent *budget.Reservation
	if x.conn != nil {
		parent = &x.conn.memory.Reservation
	}
	class := g.opts.Class(r)
	x.memory.Open(g.opts.Memory, parent, class, x.caller)
	x.system = class == budget.System
	x.overloaded = x.reserve(g.opts.Memory, r) != nil
}

// hasBody reports whether reads of the body may return bytes, or wait: a client of HTTP/2 need not end a body of length 0.
func hasBody(r *http.Request) bool {
	if r.Body == nil || r.Body == http.NoBody {
		return false
	}
	if r.ContentLength != 0 {
		return true
	}
	received, known := isReceived(r.Body)
	return known && !received
}

// isReceived reports whether the whole body of a request of service/http2 has been received.
func isReceived(body io.Reader) (received, known bool) {
	source, known := body.(interface{ Received() bool })
	return known && source.Received(), known
}

// limitBody wraps the request body, if any.
func (g *Guard) limitBody(x *Exchange, r *http.Request) {
	if !hasBody(r) {
		return
	}
	body := &limitedBody{ReadCloser: r.Body, exchange: x, request: r, limit: g.opts.MaxMessageBytes(r), opts: &g.opts}
	x.bodyUnread.Store(true)
	x.body = r.Body
	if protocol.Of(r).IsEnveloped() {
		body.frames = &body.first
		body.first.compression = namesCompression(r)
	} else {
		body.tooLarge = r.ContentLength > body.limit
	}
	if !x.stream {
		x.startBodyTimeout()
	}
	r.Body = body
}

// add adds the exchange to the list. It reports whether StopStreams was called.
func (g *Guard) add(x *Exchange) (stopped bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.next = g.first; x.next != nil {
		x.next.prev = x
	}
	g.first = x
	return g.streamsStopped
}

func (g *Guard) remove(x *Exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		g.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	}
	if g.first == nil && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

func (g *Guard) run() {
	defer close(g.stopped)
	ticker := time.NewTicker(g.sweepEvery())
	defer ticker.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-g.drainSignal:
			ticker.Reset(g.sweepEvery())
			g.sweep(time.Now())
		case now := <-ticker.C:
			g.sweep(now)
		}
	}
}

func (g *Guard) sweepEvery() time.Duration {
	shorter := min(g.opts.StallTimeout, g.opts.BodyTimeout)
	if timeout := time.Duration(g.drainTimeout.Load()); timeout > 0 {
		shorter = min(shorter, timeout)
	}
	return max(min(shorter/4, time.Second), 5*time.Millisecond)
}

// sweep aborts the exchanges that exceeded a timeout.
func (g *Guard) sweep(now time.Time) {
	stalled, timedOut := g.expired(now)
	for _, x := range stalled {
		switch {
		case x.abortWrite(func() { g.stalls.Add(1); x.stalled.Store(true) }):
			g.logAborted(x, now, "response write stalled, stream ended")
		case now.Sub(g.sinceDrain(x.started.Add(x.sweepSince))) >= 2*g.stallTimeout(x) && x.closeConn():
			// The stream cannot be reset either, because the connection is stalled.
			g.logAborted(x, now, "connection write stalled, connection closed")
		}
	}
	for _, x := range timedOut {
		if x.abortRead(func() { g.bodyTimeouts.Add(1); x.bodyTimedOut.Store(true) }) {
			g.logAborted(x, now, "request body timeout, request aborted")
		}
	}
}

// expired returns the exchanges to abort. The caller aborts them without the lock, because that can
// block on the connection.
func (g *Guard) expired(now time.Time) (stalled, timedOut []*Exchange) {
	bodyTimeout, timeout := g.opts.BodyTimeout, time.Duration(g.drainTimeout.Load())
	if g.opts.Memory.Observe(); g.opts.Memory.Level() >= budget.High {
		bodyTimeout = min(bodyTimeout, lowMemoryBodyTimeout)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := g.first; x != nil; x = x.next {
		age := now.Sub(x.started)
		if ops := x.writeOps.Load(); ops != x.sweepOps || ops%2 == 1 && x.madeProgress() {
			x.sweepOps, x.sweepSince = ops, age
		} else if ops%2 == 1 && g.stalled(x, x.started.Add(x.sweepSince), now) {
			stalled = append(stalled, x)
			continue
		}
		wait := x.bodyWait.Load()
		if reads := x.bodyReads.Load(); wait == 0 || reads != x.sweepReads || x.sweepBodySince == 0 {
			x.sweepReads, x.sweepBodySince = reads, age
		}
		switch {
		case wait == 0:
		case age-time.Duration(wait) >= bodyTimeout, timeout > 0 && now.Sub(g.sinceDrain(x.started.Add(x.sweepBodySince))) >= timeout:
			timedOut = append(timedOut, x)
		}
	}
	return stalled, timedOut
}

func (g *Guard) logAborted(x *Exchange, now time.Time, message string) {
	g.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, message,
		slog.String("path", x.request.URL.Path),
		slog.String("peer", x.request.RemoteAddr),
		slog.Duration("age", now.Sub(x.started)))
}
