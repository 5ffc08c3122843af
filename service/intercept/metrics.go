package intercept

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// The kinds of RPCs, as dashboards for gRPC servers know them.
const (
	kindUnary        = "unary"
	kindClientStream = "client_stream"
	kindServerStream = "server_stream"
	kindBidiStream   = "bidi_stream"
)

// codeNames are the names of the codes in metrics, by their numbers.
var codeNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
	"AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
	"Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss",
	"Unauthenticated",
}

// codeOK is the number of success, which package connect has no name for.
const codeOK = connect.Code(0)

// durationBuckets are the usual ones of Prometheus, so that thresholds in existing
// dashboards fall onto bounds, and finer ones below: most reads take less than the
// first of those.
var durationBuckets = []float64{
	.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
}

// Metrics counts the calls of the services in the proto. It belongs outside Errors,
// where the code of the answer is known, and inside the interceptor that traces, so
// that a slow call's bucket names its trace.
//
// Every series that a dashboard divides by exists from the start, at zero. A
// procedure that is not in the proto passes uncounted: no caller can make a series.
type Metrics struct {
	serverOnly

	methods map[string]*methodMetrics // by procedure; never changed
}

// methodMetrics are the series of one method, found once.
type methodMetrics struct {
	started, received, sent prometheus.Counter
	handled                 [len(codeNames)]prometheus.Counter
	seconds                 prometheus.Observer
	open                    prometheus.Gauge // nil for unary methods

	// Seventeen histograms for each method would be most of what is scraped, and
	// most of them would stay empty. They are made when their code first occurs.
	byStatus  [len(codeNames)]atomic.Pointer[prometheus.Observer]
	procedure string
	durations *prometheus.HistogramVec
}

type rpcVecs struct {
	started, handled, received, sent *prometheus.CounterVec
	seconds, durations               *prometheus.HistogramVec
	open                             *prometheus.GaugeVec
}

// NewMetrics returns an interceptor whose metrics are in the registry:
//
//   - grpc_server_started_total, grpc_server_msg_received_total and
//     grpc_server_msg_sent_total by grpc_type, grpc_service and grpc_method;
//   - grpc_server_handled_total by these and grpc_code;
//   - grpc_server_handling_seconds, a histogram by the first three;
//   - grpc_request_duration_seconds, a histogram by method, which is the full
//     procedure, and status, which is the code's name;
//   - userd_open_streams by grpc_type, grpc_service and grpc_method.
//
// The time of a stream is its whole life.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	vecs := newRPCVecs()
	var failures error
	for _, c := range []prometheus.Collector{
		vecs.started, vecs.handled, vecs.received, vecs.sent, vecs.seconds, vecs.durations, vecs.open,
	} {
		failures = errors.Join(failures, registry.Register(c))
	}
	if failures != nil {
		return nil, failures
	}
	m := &Metrics{methods: make(map[string]*methodMetrics)}
	services := userv1.File_user_v1_user_service_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			rpc := vecs.of(methods.Get(j))
			m.methods[rpc.procedure] = rpc
		}
	}
	return m, nil
}

func newRPCVecs() rpcVecs {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(labels[:3:3], more...))
	}
	return rpcVecs{
		started:  counter("grpc_server_started_total", "RPCs begun on the server."),
		handled:  counter("grpc_server_handled_total", "RPCs ended on the server, by the code of the answer.", "grpc_code"),
		received: counter("grpc_server_msg_received_total", "Messages received from callers."),
		sent:     counter("grpc_server_msg_sent_total", "Messages sent to callers."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "Time from the beginning of an RPC to its end; of a stream, its life.",
			Buckets: durationBuckets,
		}, labels),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_request_duration_seconds", Help: "Time from the beginning of an RPC to its end, by the code of the answer.",
			Buckets: durationBuckets,
		}, []string{"method", "status"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "userd_open_streams", Help: "Streams that are open now.",
		}, labels),
	}
}

func (v *rpcVecs) of(method protoreflect.MethodDescriptor) *methodMetrics {
	service, name, kind := string(method.Parent().FullName()), string(method.Name()), kindOf(method)
	m := &methodMetrics{
		started:   v.started.WithLabelValues(kind, service, name),
		received:  v.received.WithLabelValues(kind, service, name),
		sent:      v.sent.WithLabelValues(kind, service, name),
		seconds:   v.seconds.WithLabelValues(kind, service, name),
		procedure: "/" + service + "/" + name,
		durations: v.durations,
	}
	for code := range codeNames {
		m.handled[code] = v.handled.WithLabelValues(kind, service, name, codeNames[code])
	}
	if kind != kindUnary {
		m.open = v.open.WithLabelValues(kind, service, name)
	}
	m.duration(codeOK)
	return m
}

func kindOf(method protoreflect.MethodDescriptor) string {
	switch in, out := method.IsStreamingClient(), method.IsStreamingServer(); {
	case in && out:
		return kindBidiStream
	case in:
		return kindClientStream
	case out:
		return kindServerStream
	}
	return kindUnary
}

// WrapUnary counts unary calls.
func (m *Metrics) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		rpc := m.methods[req.Spec().Procedure]
		if rpc == nil {
			return next(ctx, req)
		}
		rpc.started.Inc()
		rpc.received.Inc() // it was decoded before this ran
		code, began := connect.CodeUnknown, time.Now()
		// Deferred for the panics that nobody recovers from: what has begun must end.
		defer func() { rpc.ended(ctx, code, time.Since(began)) }()
		res, err := next(ctx, req)
		if code = metricCode(err); err == nil {
			rpc.sent.Inc()
		}
		return res, err
	}
}

// WrapStreamingHandler counts streams and their messages.
func (m *Metrics) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		rpc := m.methods[conn.Spec().Procedure]
		if rpc == nil || rpc.open == nil {
			return next(ctx, conn)
		}
		rpc.started.Inc()
		rpc.open.Inc()
		code, began := connect.CodeUnknown, time.Now()
		defer func() {
			rpc.open.Dec()
			rpc.ended(ctx, code, time.Since(began))
		}()
		err := next(ctx, &countedConn{StreamingHandlerConn: conn, rpc: rpc})
		code = metricCode(err)
		return err
	}
}

func (m *methodMetrics) ended(ctx context.Context, code connect.Code, took time.Duration) {
	m.handled[code].Inc()
	seconds := took.Seconds()
	span := trace.SpanContextFromContext(ctx)
	if !span.IsSampled() {
		m.seconds.Observe(seconds)
		m.duration(code).Observe(seconds)
		return
	}
	// Only a trace that somebody keeps is worth pointing at.
	example := prometheus.Labels{"trace_id": span.TraceID().String()}
	observe(m.seconds, seconds, example)
	observe(m.duration(code), seconds, example)
}

func observe(to prometheus.Observer, value float64, example prometheus.Labels) {
	if to, ok := to.(prometheus.ExemplarObserver); ok {
		to.ObserveWithExemplar(value, example)
		return
	}
	to.Observe(value)
}

// duration returns the histogram of a code. Two calls that make it at once get the
// same one.
func (m *methodMetrics) duration(code connect.Code) prometheus.Observer {
	if made := m.byStatus[code].Load(); made != nil {
		return *made
	}
	made := m.durations.WithLabelValues(m.procedure, codeNames[code])
	m.byStatus[code].Store(&made)
	return made
}

// metricCode returns the code of an answer, always one that has a name.
func metricCode(err error) connect.Code {
	switch {
	case err == nil, connect.IsNotModifiedError(err): // "not modified" is no failure
		return codeOK
	case errors.As(err, new(*connect.Error)):
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	}
	if code := recordedCode(err); int(code) < len(codeNames) {
		return code
	}
	return connect.CodeUnknown
}

// countedConn counts a stream's messages.
type countedConn struct {
	connect.StreamingHandlerConn

	rpc *methodMetrics
}

// Receive counts what could be read.
func (c *countedConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if err == nil {
		c.rpc.received.Inc()
	}
	return err
}

// Send counts what was sent. Without a message only the header goes out.
func (c *countedConn) Send(message any) error {
	err := c.StreamingHandlerConn.Send(message)
	if err == nil && message != nil {
		c.rpc.sent.Inc()
	}
	return err
}
