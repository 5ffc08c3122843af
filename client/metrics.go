package client

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics is an interceptor that counts calls, under the names of go-grpc-prometheus.
type metrics struct {
	started, handled, sent, received, retries *prometheus.CounterVec
	seconds                                   *prometheus.HistogramVec
	enabled                                   bool

	mu      sync.RWMutex
	methods map[string]*methodMetrics // by procedure
}

// methodMetrics are the metrics of a method.
type methodMetrics struct {
	started, sent, received prometheus.Counter
	seconds                 prometheus.Observer
	ok                      prometheus.Counter
	labels                  [3]string // type, service, method
}

func newMetrics() *metrics {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_client_" + name, Help: help}, labels)
	}
	return &metrics{
		started:  counter("started_total", "RPCs started by the client.", labels...),
		handled:  counter("handled_total", "RPCs completed by the client.", append(labels, "grpc_code")...),
		sent:     counter("msg_sent_total", "Messages sent by the client.", labels...),
		received: counter("msg_received_total", "Messages received by the client.", labels...),
		retries:  counter("retries_total", "Attempts of a call after the first one, and reconnections of streams.", "grpc_method"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_client_handling_seconds", Help: "Duration of RPCs in seconds.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, labels),
		methods: make(map[string]*methodMetrics),
	}
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	m.enabled = true
	for _, collector := range []prometheus.Collector{m.started, m.handled, m.sent, m.received, m.retries, m.seconds} {
		if err := registerer.Register(collector); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) retried(method string) {
	if m.enabled {
		m.retries.WithLabelValues(method).Inc()
	}
}

// of returns the metrics of a method.
func (m *metrics) of(spec connect.Spec) *methodMetrics {
	m.mu.RLock()
	found := m.methods[spec.Procedure]
	m.mu.RUnlock()
	if found != nil {
		return found
	}
	service, method := path.Split(strings.TrimPrefix(spec.Procedure, "/"))
	kind := map[connect.StreamType]string{
		connect.StreamTypeUnary: "unary", connect.StreamTypeClient: "client_stream",
		connect.StreamTypeServer: "server_stream", connect.StreamTypeBidi: "bidi_stream",
	}[spec.StreamType]
	l := [3]string{kind, strings.TrimSuffix(service, "/"), method}
	found = &methodMetrics{
		started: m.started.WithLabelValues(l[:]...), sent: m.sent.WithLabelValues(l[:]...), received: m.received.WithLabelValues(l[:]...),
		seconds: m.seconds.WithLabelValues(l[:]...), ok: m.handled.WithLabelValues(l[0], l[1], l[2], "OK"), labels: l,
	}
	m.mu.Lock()
	m.methods[spec.Procedure] = found
	m.mu.Unlock()
	return found
}

// finish counts the end of a call.
func (m *metrics) finish(of *methodMetrics, start time.Time, err error) {
	of.seconds.Observe(time.Since(start).Seconds())
	if err == nil {
		of.ok.Inc()
		return
	}
	m.handled.WithLabelValues(of.labels[0], of.labels[1], of.labels[2], codeName(connect.CodeOf(err))).Inc()
}

// codeName returns the name that gRPC libraries use in metrics, such as NotFound.
func codeName(code connect.Code) string {
	var name strings.Builder
	for word := range strings.SplitSeq(code.String(), "_") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return name.String()
}

// WrapUnary counts a unary call.
func (m *metrics) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		of, start := m.of(request.Spec()), time.Now()
		of.started.Inc()
		of.sent.Inc()
		response, err := next(ctx, request)
		if err == nil {
			of.received.Inc()
		}
		m.finish(of, start, err)
		return response, err
	}
}

// WrapStreamingClient counts a stream and its messages.
func (m *metrics) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		of := m.of(spec)
		of.started.Inc()
		return &countedConn{StreamingClientConn: next(ctx, spec), metrics: m, of: of, start: time.Now()}
	}
}

// WrapStreamingHandler is not used by clients.
func (m *metrics) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// countedConn counts the messages and the end of a stream.
type countedConn struct {
	connect.StreamingClientConn

	metrics *metrics
	of      *methodMetrics
	start   time.Time
	ended   sync.Once
}

// Send counts a message.
func (c *countedConn) Send(message any) error {
	err := c.StreamingClientConn.Send(message)
	if err == nil && message != nil {
		c.of.sent.Inc()
	}
	return err
}

// Receive counts a message, or the end of the stream.
func (c *countedConn) Receive(message any) error {
	err := c.StreamingClientConn.Receive(message)
	switch {
	case err == nil:
		c.of.received.Inc()
	case errors.Is(err, io.EOF):
		c.end(nil)
	default:
		c.end(err)
	}
	return err
}

// CloseResponse counts the end of a stream that the client closes.
func (c *countedConn) CloseResponse() error {
	err := c.StreamingClientConn.CloseResponse()
	c.end(err)
	return err
}

func (c *countedConn) end(err error) { c.ended.Do(func() { c.metrics.finish(c.of, c.start, err) }) }
