package transport

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
)

// longAgo is a deadline that has passed. Setting it ends a blocked read or write.
var longAgo = time.Unix(1, 0)

// shortBodyTimeout is how long a body may take while memory is short.
const shortBodyTimeout = 2 * time.Second

// GuardOptions are the limits that a Guard keeps, and what it tells of requests.
type GuardOptions struct {
	// StallTimeout is how long a peer may take nothing of what is being written.
	StallTimeout time.Duration
	// BodyTimeout is how long a request body may take, and of a stream each message that
	// has begun.
	BodyTimeout time.Duration
	// RestTimeout is how long a response waits for the end of a request that its handler has
	// not read. 0: 100 ms.
	RestTimeout time.Duration
	// MaxMessageBytes bounds a message of a request as it comes in, still compressed.
	MaxMessageBytes func(*http.Request) int64
	// TooLarge is the error for a message beyond the limit, Late for one that did not come.
	TooLarge func(r *http.Request, limit int64) error
	Late     func() error
	// BodyFault is the error for a body that its caller got wrong; its type is
	// *connect.Error, which package connect passes on. nil: io.ErrUnexpectedEOF.
	BodyFault func(fault BodyFault, message string) error
	// Memory is the budget that requests draw on, nil: without a limit. Account returns
	// the caller whose account a request begins with; it is required with Memory.
	Memory  *budget.Budget
	Account func(*http.Request) (class budget.Class, caller string)
	// Overloaded returns the error for a message that the budget has no room for. It is
	// required with Memory.
	Overloaded func(*http.Request) error
	// Scheduler shares the processors among callers; nil: handlers run as they come.
	Scheduler *fair.Scheduler
	// Streams reports whether the request's body is a stream, which may take as
	// long as the caller wants.
	Streams func(*http.Request) bool
	// Context, if set, returns the context for the handler of a request.
	Context func(*http.Request, *Exchange) context.Context
	// Done, if set, is told when a handler has returned or has panicked, on its
	// goroutine.
	Done   func(*http.Request, *Exchange)
	Logger *slog.Logger
}

// Guard is the outermost middleware. It is safe for use by many goroutines.
type Guard struct {
	opts   GuardOptions
	stalls atomic.Int64
	late   atomic.Int64
	// hurry is how long a peer may take nothing of a stream, and bring nothing of a
	// body, once the server is about to stop. 0: it is not.
	hurry     atomic.Int64
	hurriedAt atomic.Pointer[time.Time] // when that began: time before it does not count; nil: it has not
	hurried   chan struct{}
	departing atomic.Bool // connections are to end with their next answer

	mu    sync.Mutex
	first *Exchange     // all that go on
	ended bool          // StopStreams was called
	idle  chan struct{} // closed when there are none; nil: nobody waits

	stop    chan struct{}
	stopped chan struct{}
}

// NewGuard returns a guard, whose one goroutine runs until Close.
func NewGuard(opts GuardOptions) *Guard {
	g := &Guard{
		opts: opts, hurried: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go g.run()
	return g
}

// Hurry shortens the time for which a peer may take nothing of a stream that is being
// written, and bring nothing of a body that is waited for, for what goes on as well. A
// server that stops calls it: a handler that is blocked in such a write cannot be told
// so, and would hold the stop up for as long as the stall limit, as would a body that
// does not come. Who takes what comes, however slowly, is not cut, and the answer to a
// call keeps its time: nobody can have it elsewhere. A grace above the stall limit
// changes nothing for writes.
func (g *Guard) Hurry(grace time.Duration) {
	now := time.Now()
	g.hurriedAt.CompareAndSwap(nil, &now)
	g.hurry.Store(max(int64(grace), 1))
	select {
	case g.hurried <- struct{}{}:
	default: // the one before has yet to be seen, and will find this grace
	}
}

// Depart makes the connections of HTTP/1.1 end with their next answer, which says so: a
// caller who sent another request could have it cut when the server stops.
func (g *Guard) Depart() { g.departing.Store(true) }

// patience is how long the peer of an exchange may take nothing.
func (g *Guard) patience(x *Exchange) time.Duration {
	if hurry := time.Duration(g.hurry.Load()); hurry > 0 && x.flows.Load() {
		return min(hurry, g.opts.StallTimeout)
	}
	return g.opts.StallTimeout
}

// stalled reports whether an exchange that has stood still since a time has used up its
// stall timeout, or, during a drain, the shorter one. That begins with the drain: a reader
// that was slow before it gets the whole of it.
func (g *Guard) stalled(x *Exchange, since, now time.Time) bool {
	return now.Sub(since) >= g.opts.StallTimeout ||
		x.flows.Load() && g.hurry.Load() > 0 && now.Sub(g.notBeforeDrain(since)) >= g.patience(x)
}

// notBeforeDrain is the later of the time and the beginning of the drain.
func (g *Guard) notBeforeDrain(since time.Time) time.Time {
	if drain := g.hurriedAt.Load(); drain != nil && drain.After(since) {
		return *drain
	}
	return since
}

// Close ends the guard's goroutine. It is called once, after the last request.
func (g *Guard) Close() {
	close(g.stop)
	<-g.stopped
}

// WaitIdle returns once no request is being handled, or with the context's error.
// It is for the end, when no more come.
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

// StopStreams ends the reading of all bodies that are streams, those that are yet to
// come too: a handler that waits for its caller's next message would wait past any
// drain.
func (g *Guard) StopStreams() {
	g.mu.Lock()
	g.ended = true
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

// Stalls is how many exchanges were cut since their peers took nothing.
func (g *Guard) Stalls() int64 { return g.stalls.Load() }

// LateBodies is how many exchanges were cut since their bodies did not come.
func (g *Guard) LateBodies() int64 { return g.late.Load() }

// Wrap returns the handler under guard.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &Exchange{ResponseWriter: w, control: http.NewResponseController(w), born: time.Now(), text: textForm(r)}
		if conn, ok := r.Context().Value(netConn{}).(*gatherConn); ok {
			conn.asked.Store(true)
			conn.memory.begin(conn.listener.now(), r.ProtoMajor == 1)
			x.conn = conn
		}
		if g.opts.Memory != nil {
			g.reserve(x, r)
		}
		if g.opts.Context != nil {
			r = r.WithContext(g.opts.Context(r, x)) //nolint:contextcheck // it is made of the request's own
		}
		x.request = r
		if g.departing.Load() && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		g.limitBody(x, r)
		if g.enter(x) && x.stream {
			x.StopReading()
		}
		x.slot.Open(g.opts.Scheduler, Peer(r.RemoteAddr))
		defer func() {
			x.slot.Close()
			fault := recover()
			// A handler's way to cut the connection is not a fault.
			x.broken = x.broken || fault != nil && fault != http.ErrAbortHandler //nolint:errorlint // the very value
			if fault == nil {
				_ = x.endText() // a reader that is gone cannot be told
				x.discardRest(cmp.Or(g.opts.RestTimeout, restTimeout))
			}
			x.finish(g.patience(x), g.opts.BodyTimeout)
			if g.opts.Done != nil {
				g.opts.Done(r, x)
			}
			x.memory.Release()
			if x.conn != nil {
				x.conn.memory.headers.Add(-x.headers)
				x.conn.memory.end(x.conn.listener.now())
			}
			g.leave(x)
			if fault != nil {
				panic(fault) // net/http ends the exchange, and shows the stack
			}
		}()
		next.ServeHTTP(x, r)
	})
}

// reserve opens the reservation of a request.
func (g *Guard) reserve(x *Exchange, r *http.Request) {
	class, caller := g.opts.Account(r)
	var parent *budget.Reservation
	if x.conn != nil {
		parent = &x.conn.memory.Reservation
	}
	x.memory.Open(g.opts.Memory, parent, class, caller)
	x.short = x.reserve(g.opts.Memory, r) != nil
}

// limitBody limits the body that the handler reads, if there is one.
func (g *Guard) limitBody(x *Exchange, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	body := &limitedBody{ReadCloser: r.Body, exchange: x, limit: g.opts.MaxMessageBytes(r), opts: &g.opts}
	x.bodyLeft.Store(true)
	x.rest = r.Body
	if enveloped(r.Header.Get("Content-Type")) {
		body.frames = &frames{compression: namesCompression(r)}
	} else {
		body.known = r.ContentLength > body.limit
	}
	if x.stream = g.opts.Streams(r); !x.stream {
		x.bodyDue()
	}
	r.Body = body
}

// enter reports whether streams are no longer read.
func (g *Guard) enter(x *Exchange) (ended bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.next = g.first; x.next != nil {
		x.next.prev = x
	}
	g.first = x
	return g.ended
}

func (g *Guard) leave(x *Exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x.progress.end()
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
		case <-g.hurried:
			ticker.Reset(g.sweepEvery())
			g.sweep(time.Now())
		case now := <-ticker.C:
			g.sweep(now)
		}
	}
}

func (g *Guard) sweepEvery() time.Duration {
	shorter := min(g.opts.StallTimeout, g.opts.BodyTimeout)
	if hurry := time.Duration(g.hurry.Load()); hurry > 0 {
		shorter = min(shorter, hurry)
	}
	return max(min(shorter/4, time.Second), 5*time.Millisecond)
}

// sweep cuts the exchanges that have stood still for too long.
func (g *Guard) sweep(now time.Time) {
	stalled, late := g.look(now)
	for _, x := range stalled {
		switch {
		case x.endWrite(func() { g.stalls.Add(1) }):
			g.tell(x, now, "response write stalled, stream ended")
		case now.Sub(g.notBeforeDrain(x.sweepSince)) >= 2*g.patience(x) && x.closeConn():
			// To end the write HTTP/2 has to send a frame. If it cannot do that either,
			// the connection is at a standstill with all that is on it.
			g.tell(x, now, "closed a connection that takes nothing")
		}
	}
	for _, x := range late {
		if x.endRead(func() { g.late.Add(1); x.late.Store(true) }) {
			g.tell(x, now, "cut a request whose body does not come")
		}
	}
}

// look finds what has to be cut. Cutting comes after, without the lock: it waits for
// the connection.
func (g *Guard) look(now time.Time) (stalled, late []*Exchange) {
	bodyTimeout, hurry := g.opts.BodyTimeout, time.Duration(g.hurry.Load())
	if g.opts.Memory.Observe(); g.opts.Memory.Level() >= budget.High {
		bodyTimeout = min(bodyTimeout, shortBodyTimeout)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := g.first; x != nil; x = x.next {
		if ops := x.ops.Load(); ops != x.sweepOps || ops%2 == 1 && x.moved() {
			x.sweepOps, x.sweepSince = ops, now
		} else if ops%2 == 1 && g.stalled(x, x.sweepSince, now) {
			stalled = append(stalled, x)
			continue
		}
		due := x.due.Load()
		if came := x.came.Load(); due == 0 || came != x.sweepCame || x.sweepDue.IsZero() {
			x.sweepCame, x.sweepDue = came, now
		}
		switch {
		case due == 0:
		case now.Sub(x.born)-time.Duration(due) >= bodyTimeout, hurry > 0 && now.Sub(g.notBeforeDrain(x.sweepDue)) >= hurry:
			late = append(late, x)
		}
	}
	return stalled, late
}

func (g *Guard) tell(x *Exchange, now time.Time, what string) {
	g.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, what,
		slog.String("path", x.request.URL.Path),
		slog.String("peer", x.request.RemoteAddr),
		slog.Duration("age", now.Sub(x.born)))
}
