package telemetry

import (
	"context"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	// burstIdleTimeout is the idle time after which a burst ends.
	burstIdleTimeout = 2 * time.Second
	// maxBurst is the maximum duration of a burst, so that a busy stream produces spans.
	maxBurst = 30 * time.Second
)

// streamSpans is an interceptor that traces streams. A span is exported when it ends, so one
// span for a stream of hours would not be visible in time. A stream has instead:
//
//   - an opening span until the first message or header is sent (or received, for a client
//     stream), which covers authorization, the start position and the first read;
//   - a span "… burst" for each period with messages in either direction, which ends after
//     2 s without messages or after 30 s; it has the number of store calls and rows;
//   - a span "… end" with the code, the duration and the totals. A stream that fails before
//     its first message has the code in the opening span instead.
//
// Bursts and ends are separate traces with a link to the opening span, and are sampled
// independently. Spans of the store exist only within the opening span.
type streamSpans struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	trust      bool
	protocol   func(context.Context, connect.Peer) string
}

func newStreamSpans(t *Tracing, protocol func(context.Context, connect.Peer) string) *streamSpans {
	return &streamSpans{
		tracer:     t.provider.Tracer("github.com/yourorg/userservice/service/telemetry"),
		propagator: t.propagator, trust: t.trust, protocol: protocol,
	}
}

// WrapUnary adds the protocol to the span of a unary call.
func (s *streamSpans) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if span := trace.SpanFromContext(ctx); traced(req.Spec()) && span.IsRecording() {
			span.SetAttributes(attribute.String(protocolAttribute, s.protocol(ctx, req.Peer())))
		}
		return next(ctx, req)
	}
}

const protocolAttribute = "userd.protocol"

// WrapStreamingClient returns next unchanged.
func (s *streamSpans) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler traces streams.
func (s *streamSpans) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		spec := conn.Spec()
		if !traced(spec) {
			return next(ctx, conn)
		}
		protocol := s.protocol(ctx, conn.Peer())
		ctx, opening := s.open(ctx, conn, protocol)
		stream := &tracedConn{StreamingHandlerConn: conn, spans: s, opening: opening, start: time.Now(), protocol: protocol}
		ctx = trace.ContextWithSpan(ctx, &openingSpan{opening, stream})
		stream.name = strings.TrimPrefix(spec.Procedure, "/")
		// Deferred, so that a panic ends the spans.
		code := "UNKNOWN"
		defer func() { stream.end(code) }()
		err = next(ctx, stream)
		code = statusName(err)
		return err
	}
}

// open starts the opening span, with the attributes that otelconnect uses.
func (s *streamSpans) open(ctx context.Context, conn connect.StreamingHandlerConn, protocol string) (context.Context, trace.Span) {
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(rpcAttributes(conn, protocol)...),
	}
	if !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = s.propagator.Extract(ctx, propagation.HeaderCarrier(conn.RequestHeader()))
		if link := trace.LinkFromContext(ctx); !s.trust && link.SpanContext.IsValid() {
			options = append(options, trace.WithNewRoot(), trace.WithLinks(link))
		}
	}
	return s.tracer.Start(ctx, strings.TrimPrefix(conn.Spec().Procedure, "/"), options...) //nolint:spancheck // tracedConn ends it
}

func rpcAttributes(conn connect.StreamingHandlerConn, protocol string) []attribute.KeyValue {
	system := "grpc"
	if conn.Peer().Protocol == connect.ProtocolConnect {
		system = "connectrpc"
	}
	return []attribute.KeyValue{
		attribute.String("rpc.system.name", system),
		attribute.String("rpc.method", strings.TrimPrefix(conn.Spec().Procedure, "/")),
		attribute.String(protocolAttribute, protocol),
	}
}

// openingSpan is the span in the context of a stream. The store creates child spans while it
// records, and afterwards calls AddStoreCall instead.
type openingSpan struct {
	trace.Span

	stream *tracedConn
}

// AddStoreCall counts a store call. The store finds the method by an interface assertion, because
// the packages do not import each other.
func (s *openingSpan) AddStoreCall(rows int) {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	s.stream.burst.storeCalls++
	s.stream.burst.rows += int64(rows)
}

// tracedConn is a traced stream. Send and Receive may be called concurrently.
type tracedConn struct {
	connect.StreamingHandlerConn

	spans    *streamSpans
	name     string
	protocol string
	start    time.Time

	mu             sync.Mutex
	opening        trace.Span
	opened         bool // the opening span has ended
	burst          burst
	bursts         int
	idleTimer      *time.Timer // ends the current burst; nil before the first
	sent, received int64
}

// burst counts the messages and store calls of a burst.
type burst struct {
	first, last      time.Time // zero: no message
	sent, received   int64
	storeCalls, rows int64 // store calls and rows
}

// Receive counts a received message.
func (c *tracedConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if err == nil {
		c.countMessages(0, 1)
	}
	return err
}

// Send counts a sent message.
func (c *tracedConn) Send(message any) error {
	err := c.StreamingHandlerConn.Send(message)
	switch {
	case err != nil:
	case message == nil: // header only
		c.countMessages(0, 0)
	default:
		c.countMessages(1, 0)
	}
	return err
}

// countMessages counts messages. A message received before anything is sent belongs to the opening
// span, except on a client stream.
func (c *tracedConn) countMessages(sent, received int64) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent += sent
	c.received += received
	if !c.opened {
		if received > 0 && c.Spec().StreamType != connect.StreamTypeClient {
			return
		}
		c.opened = true
		c.opening.End()
	}
	if sent+received == 0 {
		return
	}
	if c.burst.first.IsZero() {
		c.burst.first = now
		c.watch()
	}
	c.burst.last = now
	c.burst.sent += sent
	c.burst.received += received
	if now.Sub(c.burst.first) >= maxBurst {
		c.endBurst()
	}
}

// watch starts the idle timer. The timer re-checks the burst, because a reset for each message
// would cost more. The lock is held.
func (c *tracedConn) watch() {
	if c.idleTimer == nil {
		c.idleTimer = time.AfterFunc(burstIdleTimeout, c.checkIdle)
		return
	}
	c.idleTimer.Reset(burstIdleTimeout)
}

func (c *tracedConn) checkIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.burst.first.IsZero() {
		return
	}
	if left := burstIdleTimeout - time.Since(c.burst.last); left > 0 {
		c.idleTimer.Reset(left)
		return
	}
	c.endBurst()
}

// endBurst creates the span of the burst retroactively, so that no span is open while the
// stream is idle. The lock is held.
func (c *tracedConn) endBurst() {
	b := c.burst
	c.burst = burst{}
	c.bursts++
	span := c.startLinked("burst", b.first,
		attribute.Int("userd.stream.burst", c.bursts),
		attribute.Int64("userd.stream.sent", b.sent),
		attribute.Int64("userd.stream.received", b.received),
		attribute.Int64("userd.store.calls", b.storeCalls),
		attribute.Int64("userd.store.rows", b.rows))
	span.End(trace.WithTimestamp(b.last))
}

func (c *tracedConn) end(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleTimer != nil {
		c.idleTimer.Stop()
	}
	if !c.opened {
		c.opened = true
		c.opening.SetAttributes(attribute.String("rpc.response.status_code", code))
		setStatus(c.opening, code)
		c.opening.End()
		return
	}
	if !c.burst.first.IsZero() {
		c.endBurst()
	}
	now := time.Now()
	span := c.startLinked("end", now,
		attribute.String("rpc.response.status_code", code),
		attribute.Float64("userd.stream.age_seconds", now.Sub(c.start).Seconds()),
		attribute.Int64("userd.stream.sent", c.sent),
		attribute.Int64("userd.stream.received", c.received))
	setStatus(span, code)
	span.End(trace.WithTimestamp(now))
}

// startLinked starts a trace with a link to the opening span.
func (c *tracedConn) startLinked(what string, at time.Time, about ...attribute.KeyValue) trace.Span {
	//nolint:spancheck // the caller ends it
	_, span := c.spans.tracer.Start(context.Background(), c.name+" "+what,
		trace.WithNewRoot(), trace.WithTimestamp(at),
		trace.WithLinks(trace.Link{SpanContext: c.opening.SpanContext()}),
		trace.WithAttributes(rpcAttributes(c.StreamingHandlerConn, c.protocol)...),
		trace.WithAttributes(about...))
	return span //nolint:spancheck // see above
}

// setStatus marks server errors. Errors caused by the client and the deadline of a stream are
// not errors of the span.
func setStatus(span trace.Span, code string) {
	switch code {
	case "UNKNOWN", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS":
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String("error.type", code))
	}
}

func statusName(err error) string {
	if err == nil {
		return "OK"
	}
	return strings.ToUpper(connect.CodeOf(err).String())
}
