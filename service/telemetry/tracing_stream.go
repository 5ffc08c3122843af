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
	// quietAfter is how long nothing may pass before a burst counts as over.
	quietAfter = 2 * time.Second
	// longestBurst bounds a burst, so that a stream that is never quiet shows as it
	// goes on.
	longestBurst = 30 * time.Second
)

// streamSpans makes the spans of streams. One span for a whole stream would be seen
// only when it ends, hours later, and its trace would grow all the time. So a stream
// has:
//
//   - an opening span, as any call has, which ends with the first message to the
//     caller (the header counts as one), or from it where the caller alone sends:
//     authorization, the start point and the first read are within it;
//   - a span "… burst" for each time that messages pass, both ways, until nothing
//     has passed for two seconds or thirty are over: the replay, then each piece of
//     live traffic, with how often the store was asked for it and how many rows it
//     read or wrote;
//   - a span "… end" with the code, the age and the totals, unless the stream failed
//     before it stood: then the opening span says why.
//
// Bursts and ends are traces of their own, sampled each by itself, with a link to
// the opening span. What the store does has spans within the opening only: a burst is
// known for one when its first read is over.
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

// WrapUnary adds to the span of a unary call what its caller speaks.
func (s *streamSpans) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if span := trace.SpanFromContext(ctx); traced(req.Spec()) && span.IsRecording() {
			span.SetAttributes(attribute.String(protocolAttribute, s.protocol(ctx, req.Peer())))
		}
		return next(ctx, req)
	}
}

const protocolAttribute = "userd.protocol"

// WrapStreamingClient returns next as it is.
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
		stream := &tracedConn{StreamingHandlerConn: conn, spans: s, opening: opening, began: time.Now(), protocol: protocol}
		ctx = trace.ContextWithSpan(ctx, &openingSpan{opening, stream})
		stream.name = strings.TrimPrefix(spec.Procedure, "/")
		// Deferred for the panics that nobody recovers from.
		code := "UNKNOWN"
		defer func() { stream.end(code) }()
		err = next(ctx, stream)
		code = statusName(err)
		return err
	}
}

// open begins the opening span as otelconnect begins those of other calls.
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

// openingSpan is the opening span in the context of its stream. What asks the store has
// spans of its own while it records, and afterwards tells it.
type openingSpan struct {
	trace.Span

	stream *tracedConn
}

// StoreDid counts what the store did for the stream. It is found by its name: the store
// and this package do not know each other.
func (s *openingSpan) StoreDid(rows int) {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	s.stream.burst.asked++
	s.stream.burst.rows += int64(rows)
}

// tracedConn is a stream and its spans. Its two directions are used by a goroutine
// each.
type tracedConn struct {
	connect.StreamingHandlerConn

	spans    *streamSpans
	name     string
	protocol string
	began    time.Time

	mu             sync.Mutex
	opening        trace.Span
	stands         bool // the opening span has ended
	burst          burst
	bursts         int
	quiet          *time.Timer // ends the present burst; nil: there has been none
	sent, received int64
}

// burst is what has passed since the stream was last quiet, and what the store did for
// it.
type burst struct {
	first, last    time.Time // zero: nothing has
	sent, received int64
	asked, rows    int64 // of the store
}

// Receive notes what comes.
func (c *tracedConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if err == nil {
		c.passed(0, 1)
	}
	return err
}

// Send notes what goes.
func (c *tracedConn) Send(message any) error {
	err := c.StreamingHandlerConn.Send(message)
	switch {
	case err != nil:
	case message == nil: // the header alone
		c.passed(0, 0)
	default:
		c.passed(1, 0)
	}
	return err
}

// passed counts messages. What comes before anything goes belongs to the opening, unless
// nothing goes before the end.
func (c *tracedConn) passed(sent, received int64) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent += sent
	c.received += received
	if !c.stands {
		if received > 0 && c.Spec().StreamType != connect.StreamTypeClient {
			return
		}
		c.stands = true
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
	if now.Sub(c.burst.first) >= longestBurst {
		c.endBurst()
	}
}

// watch lets the timer look at the burst from time to time, which is cheaper than to
// set it anew with each message. The lock is held.
func (c *tracedConn) watch() {
	if c.quiet == nil {
		c.quiet = time.AfterFunc(quietAfter, c.look)
		return
	}
	c.quiet.Reset(quietAfter)
}

func (c *tracedConn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.burst.first.IsZero() {
		return
	}
	if left := quietAfter - time.Since(c.burst.last); left > 0 {
		c.quiet.Reset(left)
		return
	}
	c.endBurst()
}

// endBurst makes the span of what has passed, after the fact: that way no span is
// open while nothing happens. The lock is held.
func (c *tracedConn) endBurst() {
	b := c.burst
	c.burst = burst{}
	c.bursts++
	span := c.linked("burst", b.first,
		attribute.Int("userd.stream.burst", c.bursts),
		attribute.Int64("userd.stream.sent", b.sent),
		attribute.Int64("userd.stream.received", b.received),
		attribute.Int64("userd.store.calls", b.asked),
		attribute.Int64("userd.store.rows", b.rows))
	span.End(trace.WithTimestamp(b.last))
}

// end ends the stream's spans.
func (c *tracedConn) end(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.quiet != nil {
		c.quiet.Stop()
	}
	if !c.stands {
		c.stands = true
		c.opening.SetAttributes(attribute.String("rpc.response.status_code", code))
		setStatus(c.opening, code)
		c.opening.End()
		return
	}
	if !c.burst.first.IsZero() {
		c.endBurst()
	}
	now := time.Now()
	span := c.linked("end", now,
		attribute.String("rpc.response.status_code", code),
		attribute.Float64("userd.stream.age_seconds", now.Sub(c.began).Seconds()),
		attribute.Int64("userd.stream.sent", c.sent),
		attribute.Int64("userd.stream.received", c.received))
	setStatus(span, code)
	span.End(trace.WithTimestamp(now))
}

// linked begins a trace that points to the stream's opening.
func (c *tracedConn) linked(what string, at time.Time, about ...attribute.KeyValue) trace.Span {
	//nolint:spancheck // the callers end it, at the times that they know
	_, span := c.spans.tracer.Start(context.Background(), c.name+" "+what,
		trace.WithNewRoot(), trace.WithTimestamp(at),
		trace.WithLinks(trace.Link{SpanContext: c.opening.SpanContext()}),
		trace.WithAttributes(rpcAttributes(c.StreamingHandlerConn, c.protocol)...),
		trace.WithAttributes(about...))
	return span //nolint:spancheck // see above
}

// setStatus marks the failures that are the server's; the caller's own are none of
// the span's, and the deadline of a stream is its caller's.
func setStatus(span trace.Span, code string) {
	switch code {
	case "UNKNOWN", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS":
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String("error.type", code))
	}
}

// statusName returns the name of an answer's code as gRPC writes it.
func statusName(err error) string {
	if err == nil {
		return "OK"
	}
	return strings.ToUpper(connect.CodeOf(err).String())
}
