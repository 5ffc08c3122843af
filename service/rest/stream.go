package rest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// itemsAhead is how many rows may wait for the network as JSON.
const itemsAhead = 8

// streamBytes is what a stream takes beside the RPC that it reads: two goroutines, the
// client within the process, and what is ahead of a reader who stalls.
const streamBytes = 128 << 10

// A streamRoute is a method of a resource whose response is a stream.
type streamRoute struct {
	route   *route
	formats []string
	// open prepares the call for a request that was read.
	open func(c *call, last lastEvent, format string) opened
}

// opened is a stream that is about to be called.
type opened struct {
	// run calls the RPC and emits what comes, an item of kind itemEnd last. It stops
	// when emit returns false.
	run func(ctx context.Context, header http.Header, emit func(item) bool)
	// anchored: the stream begins at the position of the header, so that this is the
	// place to resume from until the first event.
	anchored bool
	// progress: the caller asked for progress rows.
	progress bool
}

type itemKind int

const (
	itemHeader itemKind = iota // the RPC's header
	itemRow
	itemIdle // nothing more is at hand
	itemWait // and the handler waits for more
	itemEnd
)

type item struct {
	kind     itemKind
	header   http.Header
	data     []byte // a row as JSON
	position int64
	progress bool
	err      error // of the end; nil: it was a good one
}

// session is one stream on its way to one caller. It is for one goroutine.
type session struct {
	h      *handler
	w      http.ResponseWriter
	r      *http.Request
	opened opened
	last   lastEvent
	format format
	pass   *passage

	header    http.Header // of the RPC
	epoch     string
	committed bool
	pending   *item // a progress row that has not been worth a header yet
	wrote     time.Time
	buf       []byte
	// cut gets why the stream is over for its caller, at once; what is queued is not
	// his any more.
	cut <-chan error
}

// serveStream runs a stream until it ends or its caller goes.
func (h *handler) serveStream(w http.ResponseWriter, r *http.Request, stream *streamRoute, media string, values []string) {
	last, query, wrong := readLastEvent(r)
	s := &session{h: h, w: w, r: r, last: last, format: formats[media], wrote: time.Now()}
	switch {
	case last.text == endEvent:
		s.gone()
		return
	case len(wrong) > 0 && s.format.events:
		h.opts.Refused(user.InvalidField)
		s.refuse(user.NewInvalidError(wrong...))
		return
	case len(wrong) > 0:
		h.invalid(w, wrong...)
		return
	}
	c, ok := h.read(w, r, stream.route, values, query)
	if !ok {
		return
	}
	if budget.FromContext(r.Context()).Grow(budget.Stream, streamBytes) != nil {
		h.refuseError(w, user.NewOverloadedError())
		return
	}
	o := stream.open(c, last, media)
	ctx, cancel := context.WithCancel(r.Context())
	items := make(chan item, itemsAhead)
	emit := func(it item) bool {
		select {
		case items <- it:
			return true
		case <-ctx.Done():
			return false
		}
	}
	pass := &passage{outer: r, idle: func(waits bool) {
		kind := itemIdle
		if waits {
			kind = itemWait
		}
		emit(item{kind: kind})
	}}
	header := make(http.Header)
	forward(header, r.Header)
	cut := make(chan error, 1)
	inner := intercept.WithEnd(context.WithValue(ctx, passageKey{}, pass), func(err error) {
		select {
		case cut <- err:
		default: // it has ended already
		}
	})
	go func() {
		defer close(items)
		defer func() {
			// On a goroutine of its own nobody further out catches a panic.
			if value := recover(); value != nil {
				emit(item{kind: itemEnd, err: fmt.Errorf("panic: %v\n%s", value, debug.Stack())})
			}
		}()
		o.run(inner, header, emit)
	}()
	// The handler uses what belongs to this request, so it must have returned first.
	defer h.settle(ctx, pass, items)
	defer cancel()
	s.opened, s.pass, s.cut = o, pass, cut
	s.run(ctx, items)
}

// settle waits until the reader and the handler of a canceled stream have gone.
func (h *handler) settle(ctx context.Context, pass *passage, items <-chan item) {
	for range items {
	}
	pass.done.Wait()
	if pass.fault != nil {
		h.opts.Logger.LogAttrs(ctx, slog.LevelError, "a stream's handler panicked", slog.Any("error", pass.fault))
	}
}

func (s *session) run(ctx context.Context, items <-chan item) {
	beat := time.NewTimer(s.h.opts.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case err := <-s.cut: // before all that is queued
			s.refuse(err)
			return
		default:
		}
		var ok bool
		select {
		case err := <-s.cut:
			s.refuse(err)
			return
		case it, open := <-items:
			if !open {
				return
			}
			ok = s.take(ctx, it)
		case now := <-beat.C:
			silent := now.Sub(s.wrote)
			if silent < s.h.opts.Heartbeat {
				beat.Reset(s.h.opts.Heartbeat - silent)
				continue
			}
			beat.Reset(s.h.opts.Heartbeat)
			ok = s.commit() && s.write(s.format.heartbeat(s.buf[:0])) && s.flush()
		case <-ctx.Done():
			return
		}
		if !ok {
			return
		}
	}
}

// take does what an item asks for; ok is false when there is nothing more to do.
func (s *session) take(ctx context.Context, it item) (ok bool) {
	switch it.kind {
	case itemHeader:
		s.header = it.header
		position := it.header.Get(intercept.PositionHeader)
		s.epoch, _, _ = strings.Cut(position, ":")
		return true
	case itemIdle:
		// A stream of which nothing has come may end next, with a status of its own.
		return !s.committed || s.flush()
	case itemWait:
		return s.commit() && s.flush()
	case itemRow:
		if it.progress && !s.committed {
			// It may be all there is; an end that follows at once is told otherwise.
			s.pending = &it
			return true
		}
		return s.commit() && s.row(&it)
	case itemEnd:
		s.end(ctx, it.err)
	}
	return false
}

// commit sends the header, and what was kept back until then.
func (s *session) commit() bool {
	if s.committed {
		return true
	}
	s.committed = true
	header := s.w.Header()
	forward(header, s.header)
	header.Set("Content-Type", s.format.contentType)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	header.Set("X-Content-Type-Options", "nosniff")
	s.w.WriteHeader(http.StatusOK)
	head := s.format.begin(s.buf[:0])
	if s.opened.anchored {
		head = s.format.anchor(head, s.header.Get(intercept.PositionHeader))
	}
	if !s.write(head) {
		return false
	}
	if s.pending != nil {
		pending := s.pending
		s.pending = nil
		if !s.row(pending) {
			return false
		}
	}
	return s.flush()
}

func (s *session) row(it *item) bool {
	id := ""
	if s.epoch != "" && it.position > 0 {
		id = user.FormatPosition(s.epoch, it.position)
	}
	if it.progress && !s.opened.progress {
		return s.write(s.format.anchor(s.buf[:0], id))
	}
	return s.write(s.format.row(s.buf[:0], id, it.data))
}

// write sends bytes; they go when a buffer is full or with the next flush.
func (s *session) write(data []byte) bool {
	s.buf = data[:0]
	if len(data) == 0 {
		return true
	}
	s.wrote = time.Now()
	_, err := s.w.Write(data)
	return err == nil
}

func (s *session) flush() bool {
	return http.NewResponseController(s.w).Flush() == nil
}

// end tells the caller how the stream ended.
func (s *session) end(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil: // the caller has gone
	case err == nil && !s.committed && s.last.given && s.format.events:
		s.gone()
	case err == nil:
		s.commit()
	default:
		s.tell(s.explain(ctx, err))
	}
}

// refuse ends the stream with an error of the domain.
func (s *session) refuse(err error) {
	what, _ := rpcstatus.From(err)
	s.tell(what)
}

// gone ends a stream of which nothing comes after the event that the caller has. It
// keeps an EventSource from coming back.
func (s *session) gone() {
	forward(s.w.Header(), s.header)
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusNoContent)
}

// tell ends the stream with an error.
func (s *session) tell(what *status.Status) {
	final := !s.committed && s.isEvent(what)
	if final {
		s.commit()
	}
	if s.committed {
		s.write(s.format.failure(s.buf[:0], what, final && !mayPass(what)))
		s.flush()
		return
	}
	forward(s.w.Header(), s.header)
	writeStatus(s.w, httpCode(what), what)
}

// isEvent reports whether an error before the first row is told as an event: an
// EventSource shows nothing of another response, and gives up for good. So it is where
// one resumes, and where its position cannot be resumed.
func (s *session) isEvent(what *status.Status) bool {
	return s.format.events && (s.last.given || reason(what) == user.PositionOutOfRange)
}

// mayPass reports whether an error may be gone when the caller comes back.
func mayPass(what *status.Status) bool {
	switch code.Code(what.GetCode()) {
	case code.Code_INVALID_ARGUMENT, code.Code_NOT_FOUND, code.Code_OUT_OF_RANGE, code.Code_PERMISSION_DENIED,
		code.Code_FAILED_PRECONDITION, code.Code_UNIMPLEMENTED:
		return false
	default:
		return true
	}
}

// explain gives what a caller may know of an error. One that the RPC did not send is
// a fault of the way from it.
func (s *session) explain(ctx context.Context, err error) *status.Status {
	if sent, ok := asSent(err); ok {
		return statusOf(sent)
	}
	incident := rand.Text()
	s.h.opts.Logger.LogAttrs(ctx, slog.LevelError, "a REST stream broke within the process",
		slog.String("incident", incident), slog.Any("error", err))
	return rpcstatus.Internal(incident)
}

// runStream calls a server stream and emits its rows.
func runStream[Req, Res any](
	ctx context.Context, client *connect.Client[Req, Res], req *connect.Request[Req],
	emit func(item) bool, row func(*Res) (item, error),
) {
	stream, err := client.CallServerStream(ctx, req)
	if err != nil {
		emit(item{kind: itemEnd, err: err})
		return
	}
	defer func() { _ = stream.Close() }() // how it ended is known by then
	if !emit(item{kind: itemHeader, header: stream.ResponseHeader()}) {
		return
	}
	for stream.Receive() {
		it, err := row(stream.Msg())
		if err != nil {
			emit(item{kind: itemEnd, err: err})
			return
		}
		if !emit(it) {
			return
		}
	}
	emit(item{kind: itemEnd, err: stream.Err()})
}
