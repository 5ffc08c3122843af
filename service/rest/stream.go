package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"

	"github.com/yourorg/userservice/service/httperror"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// streamBytes is the memory of a REST stream beyond that of its RPC: stack, and the buffers of the largest
// row.
const streamBytes = 48 << 10

// A streamRoute is a route whose response is a stream.
type streamRoute struct {
	route   *route
	formats []string
	// open prepares the request message for a resumed stream and a format.
	open func(c *call, last lastEvent, format string) streamOptions
}

// streamOptions describe the rows of a stream.
type streamOptions struct {
	// anchored is set if the stream starts at the position in the response header, which
	// is then the position to resume from until the first event.
	anchored bool
	// progress is set if the client asked for progress rows.
	progress bool
	// describe returns the position of a row, and whether it is a progress row.
	describe func(row proto.Message) (position int64, progress bool)
}

// stream writes the response of a stream. The handler of the RPC writes rows, and a timer writes
// heartbeats. The methods except heartbeat are for the handler's goroutine.
type stream struct {
	streamOptions

	h      *handler
	w      http.ResponseWriter
	last   lastEvent
	format format
	slot   *fair.Slot         // of the request
	header http.Header        // response header of the RPC
	done   <-chan struct{}    // closed when the client has disconnected
	cancel context.CancelFunc // ends the RPC
	corked bool               // the handler has more rows ready

	mu        sync.Mutex // guards w and the following fields until ended is set
	begun     bool       // header was forwarded
	committed bool       // the response header was sent
	ended     bool
	position  string // value of the position header
	pending   []byte // a progress row before committed
	buf       []byte
	lastWrite time.Time
	timer     *time.Timer // of the heartbeat
}

// serveStream runs a stream until it ends or the client disconnects.
func (h *handler) serveStream(w http.ResponseWriter, r *http.Request, sr *streamRoute, media string, values []string) {
	last, query, violations := readLastEvent(r)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &stream{
		h: h, w: w, last: last, format: formats[media],
		slot: fair.FromContext(ctx), header: make(http.Header), done: ctx.Done(), cancel: cancel,
	}
	switch {
	case last.text == endEvent:
		s.noContent()
		return
	case len(violations) > 0 && s.format.events:
		h.opts.Refused(user.InvalidField)
		refusal, _ := rpcstatus.From(user.NewInvalidError(violations...))
		s.sendError(refusal)
		return
	case len(violations) > 0:
		h.invalid(w, violations...)
		return
	}
	c, ok := h.read(w, r, sr.route, values, query)
	if !ok {
		return
	}
	if budget.FromContext(r.Context()).Grow(budget.Stream, streamBytes) != nil {
		h.refuseError(w, user.NewOverloadedError())
		return
	}
	s.streamOptions = sr.open(c, last, media)
	if connection, ok := reqinfo.From[reqinfo.FlushControl](ctx).(interface{ MarkStreaming() }); ok {
		connection.MarkStreaming()
	}
	// The stream replaces the flush control of the connection.
	s.run(r.WithContext(reqinfo.With[reqinfo.FlushControl](ctx, s)), c)
}

// run calls the RPC and writes its result.
func (s *stream) run(r *http.Request, c *call) {
	s.start()
	defer s.stop()
	defer func() { //nolint:contextcheck // the context of the request
		switch value := recover(); value {
		case nil:
		case http.ErrAbortHandler: // aborts the response on purpose
			panic(value)
		default:
			s.end(r.Context(), panics.New(value))
		}
	}()
	s.end(r.Context(), s.h.invoke(r, c.route, &invocation{request: c.message, send: s.send, header: s.header}))
}

// start starts the timer of the heartbeat.
func (s *stream) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastWrite = time.Now()
	s.timer = time.AfterFunc(s.h.opts.Heartbeat, s.heartbeat)
}

// stop waits for a heartbeat that is being written, and prevents further ones.
func (s *stream) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.timer.Stop()
}

// heartbeat writes a heartbeat if nothing was written for the interval.
func (s *stream) heartbeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	interval := s.h.opts.Heartbeat
	wait := interval - time.Since(s.lastWrite)
	if wait <= 0 {
		wait = interval
		if s.commit() != nil || s.write(s.format.heartbeat(nil)) != nil || s.flush() != nil {
			return
		}
	}
	s.timer.Reset(wait)
}

// lock locks mu. A heartbeat that holds it may wait for the client, so the slot is released.
func (s *stream) lock() {
	if !s.mu.TryLock() {
		s.slot.Release()
		s.mu.Lock()
	}
}

// Cork defers flushes: the handler has more rows ready.
func (s *stream) Cork() { s.corked = true }

// IsCorked implements [reqinfo.FlushControl].
func (s *stream) IsCorked() bool { return s.corked }

// Uncork sends the header and the rows: the handler waits for rows.
func (s *stream) Uncork() {
	s.slot.Release()
	s.corked = false
	s.lock()
	defer s.mu.Unlock()
	s.begin()
	if s.commit() == nil {
		_ = s.flush() // an error cancels the RPC
	}
	s.buf = nil // an idle stream holds no buffer
}

// send writes a row. A progress row is held back until the response header is sent, because a stream
// that ends next needs no row.
func (s *stream) send(message proto.Message) error {
	select {
	case <-s.done:
		return s.written(context.Canceled)
	default:
	}
	s.lock()
	defer s.mu.Unlock()
	s.begin()
	position, progress := s.describe(message.ProtoReflect().Interface())
	text, err := s.row(message, position, progress)
	switch {
	case err != nil:
		return err
	case progress && !s.committed:
		s.pending = slices.Clone(text)
		return nil
	}
	if err := s.commit(); err != nil {
		return err
	}
	if err := s.write(text); err != nil || s.corked {
		return err
	}
	return s.flush()
}

// row returns a row in the format of the stream. It is valid until the next call.
func (s *stream) row(message proto.Message, position int64, progress bool) (text []byte, err error) {
	id := ""
	if epoch, _, _ := strings.Cut(s.position, ":"); epoch != "" && position > 0 {
		id = user.FormatPosition(epoch, position)
	}
	if progress && !s.progress {
		text = s.format.anchor(s.buf[:0], id)
	} else {
		data, err := marshalRow(message)
		if err != nil {
			return nil, err
		}
		text = s.format.row(s.buf[:0], id, data)
	}
	s.buf = text[:0]
	return text, nil
}

// begin forwards the response header of the RPC, which is complete.
func (s *stream) begin() {
	if s.begun {
		return
	}
	s.begun = true
	s.position = s.header.Get(user.PositionHeader)
	if !s.committed {
		forward(s.w.Header(), s.header)
	}
}

// commit writes the response header and the pending row.
func (s *stream) commit() error {
	if s.committed {
		return nil
	}
	s.committed = true
	header := s.w.Header()
	header.Set("Content-Type", s.format.contentType)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	header.Set("X-Content-Type-Options", "nosniff")
	s.w.WriteHeader(http.StatusOK)
	head := s.format.begin(nil)
	if s.anchored {
		head = s.format.anchor(head, s.position)
	}
	head = append(head, s.pending...)
	s.pending = nil
	return s.write(head)
}

// write writes data, which is sent with the next flush or when a buffer is full.
func (s *stream) write(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	s.lastWrite = time.Now()
	_, err := s.w.Write(data)
	return s.written(err)
}

func (s *stream) flush() error {
	return s.written(http.NewResponseController(s.w).Flush())
}

// written ends the RPC after a failed write. It returns the error that connect returns then.
func (s *stream) written(err error) error {
	if err == nil {
		return nil
	}
	s.cancel()
	return connect.NewError(connect.CodeUnknown, fmt.Errorf("write response: %w", err))
}

// end writes the result of the RPC.
func (s *stream) end(ctx context.Context, err error) {
	s.stop()
	if _, ended := user.AsError(context.Cause(ctx)); ctx.Err() != nil && !ended { // the client has disconnected
		return
	}
	s.begin()
	switch {
	case err == nil && !s.committed && s.last.given && s.format.events:
		s.noContent()
	case err == nil && !s.committed:
		if s.commit() == nil {
			_ = s.flush() // the client may have disconnected
		}
	case err != nil:
		s.sendError(s.h.statusOfRPC(ctx, err))
	}
}

// noContent responds 204 to a resumed stream without further events, which stops an EventSource from
// reconnecting.
func (s *stream) noContent() {
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusNoContent)
}

// sendError ends the stream with an error.
func (s *stream) sendError(st *status.Status) {
	final := !s.committed && s.sentAsEvent(st)
	if !final && !s.committed {
		httperror.WriteStatus(s.w, httpCode(st), st)
		return
	}
	if s.commit() == nil && s.write(s.format.failure(nil, st, final && !transient(st))) == nil {
		_ = s.flush() // the client may have disconnected
	}
}

// sentAsEvent reports whether an error before the first row is sent as an event. An EventSource
// hides the body of an error response and does not reconnect, so this is done for a resumed
// stream and for a position that is out of range.
func (s *stream) sentAsEvent(st *status.Status) bool {
	return s.format.events && (s.last.given || rpcstatus.Reason(st) == user.PositionOutOfRange)
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
