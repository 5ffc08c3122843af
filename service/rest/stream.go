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
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// itemsAhead is the maximum number of buffered rows.
const itemsAhead = 8

// streamBytes is the memory of a REST stream beyond that of its RPC: two goroutines, the
// in-process client and the buffers of a stalled stream.
const streamBytes = 128 << 10

// A streamRoute is a route whose response is a stream.
type streamRoute struct {
	route   *route
	formats []string
	// open returns the stream call for a request.
	open func(c *call, last lastEvent, format string) streamCall
}

// streamCall is a stream call that has not started.
type streamCall struct {
	// run calls the RPC and emits its items; the last has kind itemEnd. It stops when emit
	// returns false.
	run func(ctx context.Context, header http.Header, emit func(item) bool)
	// anchored is set if the stream starts at the position in the response header, which
	// is then the position to resume from until the first event.
	anchored bool
	// progress is set if the client asked for progress rows.
	progress bool
}

type itemKind int

const (
	itemHeader itemKind = iota // response header of the RPC
	itemRow
	itemIdle // no more data is ready
	itemWait // the handler waits for data
	itemEnd
)

type item struct {
	kind     itemKind
	header   http.Header
	data     []byte // a row as JSON
	position int64
	progress bool
	err      error // result of the stream; nil for OK
}

// session writes one stream. It is used by one goroutine.
type session struct {
	h          *handler
	w          http.ResponseWriter
	r          *http.Request
	streamCall streamCall
	last       lastEvent
	format     format
	pass       *inProcessCall

	header    http.Header // response header of the RPC
	epoch     string
	committed bool
	pending   *item // a progress row received before the header was sent
	lastWrite time.Time
	buf       []byte
	// aborted receives an error when the stream is aborted. Queued rows are then dropped,
	// because the caller may no longer receive them.
	aborted <-chan error
}

// serveStream runs a stream until it ends or the client disconnects.
func (h *handler) serveStream(w http.ResponseWriter, r *http.Request, stream *streamRoute, media string, values []string) {
	last, query, violations := readLastEvent(r)
	s := &session{h: h, w: w, r: r, last: last, format: formats[media], lastWrite: time.Now()}
	switch {
	case last.text == endEvent:
		s.noContent()
		return
	case len(violations) > 0 && s.format.events:
		h.opts.Refused(user.InvalidField)
		s.refuse(user.NewInvalidError(violations...))
		return
	case len(violations) > 0:
		h.invalid(w, violations...)
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
	fair.FromContext(r.Context()).Release() // its messages are sent in slots of their own
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
	pass := &inProcessCall{outer: r, idle: func(waits bool) {
		kind := itemIdle
		if waits {
			kind = itemWait
		}
		emit(item{kind: kind})
	}}
	header := make(http.Header)
	forward(header, r.Header)
	aborted := make(chan error, 1)
	inner := intercept.WithEnd(context.WithValue(ctx, inProcessCallKey{}, pass), func(err error) {
		select {
		case aborted <- err:
		default: // already aborted
		}
	})
	go func() {
		defer close(items)
		defer func() {
			// There is no net/http on this goroutine to recover from a panic.
			if value := recover(); value != nil {
				emit(item{kind: itemEnd, err: fmt.Errorf("panic: %v\n%s", value, debug.Stack())})
			}
		}()
		o.run(inner, header, emit)
	}()
	// The handler uses resources of this request, so wait for it.
	defer h.waitForHandler(ctx, pass, items)
	defer cancel()
	s.streamCall, s.pass, s.aborted = o, pass, aborted
	s.run(ctx, items)
}

// waitForHandler waits until the reader and the handler of a canceled stream have returned.
func (h *handler) waitForHandler(ctx context.Context, pass *inProcessCall, items <-chan item) {
	for range items {
	}
	pass.done.Wait()
	if pass.panicErr != nil {
		h.opts.Logger.LogAttrs(ctx, slog.LevelError, "panic in stream handler", slog.Any("error", pass.panicErr))
	}
}

func (s *session) run(ctx context.Context, items <-chan item) {
	heartbeat := time.NewTimer(s.h.opts.Heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case err := <-s.aborted: // takes precedence over queued items
			s.refuse(err)
			return
		default:
		}
		var ok bool
		select {
		case err := <-s.aborted:
			s.refuse(err)
			return
		case it, open := <-items:
			if !open {
				return
			}
			ok = s.handle(ctx, it)
		case now := <-heartbeat.C:
			silent := now.Sub(s.lastWrite)
			if silent < s.h.opts.Heartbeat {
				heartbeat.Reset(s.h.opts.Heartbeat - silent)
				continue
			}
			heartbeat.Reset(s.h.opts.Heartbeat)
			ok = s.commit() && s.write(s.format.heartbeat(s.buf[:0])) && s.flush()
		case <-ctx.Done():
			return
		}
		if !ok {
			return
		}
	}
}

// handle handles an item. ok is false at the end of the stream.
func (s *session) handle(ctx context.Context, it item) (ok bool) {
	switch it.kind {
	case itemHeader:
		s.header = it.header
		position := it.header.Get(intercept.PositionHeader)
		s.epoch, _, _ = strings.Cut(position, ":")
		return true
	case itemIdle:
		// A stream without rows may end next, with an HTTP status of its own.
		return !s.committed || s.flush()
	case itemWait:
		return s.commit() && s.flush()
	case itemRow:
		if it.progress && !s.committed {
			// If the stream ends next, it needs no row.
			s.pending = &it
			return true
		}
		return s.commit() && s.row(&it)
	case itemEnd:
		s.end(ctx, it.err)
	}
	return false
}

// commit sends the header and the pending row.
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
	if s.streamCall.anchored {
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
	if it.progress && !s.streamCall.progress {
		return s.write(s.format.anchor(s.buf[:0], id))
	}
	return s.write(s.format.row(s.buf[:0], id, it.data))
}

// write writes data, which is sent with the next flush or when a buffer is full.
func (s *session) write(data []byte) bool {
	s.buf = data[:0]
	if len(data) == 0 {
		return true
	}
	s.lastWrite = time.Now()
	_, err := s.w.Write(data)
	return err == nil
}

func (s *session) flush() bool {
	return http.NewResponseController(s.w).Flush() == nil
}

// end writes the result of the stream.
func (s *session) end(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil: // the client has disconnected
	case err == nil && !s.committed && s.last.given && s.format.events:
		s.noContent()
	case err == nil:
		s.commit()
	default:
		s.sendError(s.statusFor(ctx, err))
	}
}

// refuse ends the stream with a domain error.
func (s *session) refuse(err error) {
	st, _ := rpcstatus.From(err)
	s.sendError(st)
}

// noContent responds 204 to a resumed stream without further events, which stops an EventSource from
// reconnecting.
func (s *session) noContent() {
	forward(s.w.Header(), s.header)
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusNoContent)
}

// sendError ends the stream with an error.
func (s *session) sendError(st *status.Status) {
	final := !s.committed && s.sentAsEvent(st)
	if final {
		s.commit()
	}
	if s.committed {
		s.write(s.format.failure(s.buf[:0], st, final && !transient(st)))
		s.flush()
		return
	}
	forward(s.w.Header(), s.header)
	writeStatus(s.w, httpCode(st), st)
}

// sentAsEvent reports whether an error before the first row is sent as an event. An EventSource
// hides the body of an error response and does not reconnect, so this is done for a resumed
// stream and for a position that is out of range.
func (s *session) sentAsEvent(st *status.Status) bool {
	return s.format.events && (s.last.given || reason(st) == user.PositionOutOfRange)
}

// transient reports whether an error may be transient.
func transient(st *status.Status) bool {
	switch code.Code(st.GetCode()) {
	case code.Code_INVALID_ARGUMENT, code.Code_NOT_FOUND, code.Code_OUT_OF_RANGE, code.Code_PERMISSION_DENIED,
		code.Code_FAILED_PRECONDITION, code.Code_UNIMPLEMENTED:
		return false
	default:
		return true
	}
}

// statusFor returns the status for the client. An error that the RPC did not send is internal.
func (s *session) statusFor(ctx context.Context, err error) *status.Status {
	if sent, ok := wireError(err); ok {
		return statusOf(sent)
	}
	incident := rand.Text()
	s.h.opts.Logger.LogAttrs(ctx, slog.LevelError, "REST stream failed",
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
	defer func() { _ = stream.Close() }() // stream.Err has the result
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
