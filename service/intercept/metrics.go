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
	"github.com/yourorg/userservice/service/reqinfo"
)

// Values of the label grpc_type.
const (
	kindUnary        = "unary"
	kindClientStream = "client_stream"
	kindServerStream = "server_stream"
	kindBidiStream   = "bidi_stream"
)

var codeNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
	"AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
	"Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss",
	"Unauthenticated",
}

// codeOK is the code of success, for which package connect has no constant.
const codeOK = connect.Code(0)

// okText is codeOK in log lines.
const okText = "ok"

// durationBuckets are the default buckets of Prometheus and finer ones below, because most
// reads take less than 5 ms.
var durationBuckets = []float64{
	.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
}

// methodMetrics are the metrics of one method. start and end accept a nil receiver.
type methodMetrics struct {
	started, received, sent prometheus.Counter
	handled                 [len(codeNames)]prometheus.Counter
	seconds                 prometheus.Observer
	open                    prometheus.Gauge // nil for unary methods

	// Histograms by status are created on first use, since most codes never occur.
	byStatus  [len(codeNames)]atomic.Pointer[prometheus.Observer]
	procedure string
	durations *prometheus.HistogramVec
}

type rpcVecs struct {
	started, handled, received, sent *prometheus.CounterVec
	seconds, durations               *prometheus.HistogramVec
	open                             *prometheus.GaugeVec
}

// newMethodMetrics registers the metrics of all methods in the proto and returns them by procedure:
//
//   - grpc_server_started_total, grpc_server_msg_received_total and
//     grpc_server_msg_sent_total by grpc_type, grpc_service and grpc_method;
//   - grpc_server_handled_total by these and grpc_code;
//   - grpc_server_handling_seconds, a histogram by grpc_type, grpc_service and grpc_method;
//   - grpc_request_duration_seconds, a histogram by method (the full procedure) and status
//     (the name of the code);
//   - userd_open_streams by grpc_type, grpc_service and grpc_method.
//
// The duration of a stream is its lifetime.
func newMethodMetrics(registry prometheus.Registerer) (map[string]*methodMetrics, error) {
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
	all := make(map[string]*methodMetrics)
	services := userv1.File_user_v1_user_service_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			rpc := vecs.of(methods.Get(j))
			all[rpc.procedure] = rpc
		}
	}
	return all, nil
}

func newRPCVecs() rpcVecs {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(labels[:3:3], more...))
	}
	return rpcVecs{
		started:  counter("grpc_server_started_total", "Total number of RPCs started on the server."),
		handled:  counter("grpc_server_handled_total", "Total number of RPCs completed on the server, by code.", "grpc_code"),
		received: counter("grpc_server_msg_received_total", "Total number of messages received from clients."),
		sent:     counter("grpc_server_msg_sent_total", "Total number of messages sent to clients."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "Duration of RPCs on the server in seconds; for a stream, its lifetime.",
			Buckets: durationBuckets,
		}, labels),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_request_duration_seconds", Help: "Duration of RPCs on the server in seconds, by method and status.",
			Buckets: durationBuckets,
		}, []string{"method", "status"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "userd_open_streams", Help: "Number of open streams.",
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

func (m *methodMetrics) start() {
	if m == nil {
		return
	}
	m.started.Inc()
	if m.open != nil {
		m.open.Inc()
	}
}

// end records the end of a call.
func (m *methodMetrics) end(ctx context.Context, code connect.Code, took time.Duration) {
	if m == nil {
		return
	}
	if m.open != nil {
		m.open.Dec()
	}
	m.handled[code].Inc()
	seconds := took.Seconds()
	span := trace.SpanContextFromContext(ctx)
	if !span.IsSampled() {
		m.seconds.Observe(seconds)
		m.duration(code).Observe(seconds)
		return
	}
	// An exemplar is useful only for a trace that is kept.
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

// duration returns the histogram of a code, and creates it on first use.
func (m *methodMetrics) duration(code connect.Code) prometheus.Observer {
	if made := m.byStatus[code].Load(); made != nil {
		return *made
	}
	made := m.durations.WithLabelValues(m.procedure, codeNames[code])
	m.byStatus[code].Store(&made)
	return made
}

type countedConn struct {
	connect.StreamingHandlerConn

	rpc *methodMetrics
}

// Receive counts received messages.
func (c *countedConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if err == nil {
		c.rpc.received.Inc()
	}
	return err
}

// Send counts sent messages. A nil message sends only the header.
func (c *countedConn) Send(message any) error {
	err := c.StreamingHandlerConn.Send(message)
	if err == nil && message != nil {
		c.rpc.sent.Inc()
	}
	return err
}

// Share implements reqinfo.SharedLayer.
func (c *countedConn) Share(_ any, sends *reqinfo.SharedSends) connect.StreamingHandlerConn {
	sends.Counter = c.rpc.sent
	return c.StreamingHandlerConn
}
