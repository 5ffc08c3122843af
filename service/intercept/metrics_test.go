package intercept_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/trace"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/intercept"
)

func newMetrics(t testing.TB) (*intercept.Observer, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	m, err := intercept.NewObserver(intercept.ObserverOptions{Logger: slog.New(slog.DiscardHandler), Interval: time.Second, Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	return m, registry
}

// series returns the metrics of a family that have all the labels, given as pairs of name and
// value.
func series(t testing.TB, from prometheus.Gatherer, family string, pairs ...string) []*dto.Metric {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var found []*dto.Metric
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			match := true
			for i := 0; i < len(pairs); i += 2 {
				match = match && labels[pairs[i]] == pairs[i+1]
			}
			if match {
				found = append(found, m)
			}
		}
	}
	return found
}

// total adds up counters, gauges and histogram counts.
func total(t testing.TB, from prometheus.Gatherer, family string, pairs ...string) float64 {
	t.Helper()
	sum := 0.0
	for _, m := range series(t, from, family, pairs...) {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum
}

func check(t testing.TB, from prometheus.Gatherer, want float64, family string, pairs ...string) {
	t.Helper()
	if got := total(t, from, family, pairs...); got != want {
		t.Errorf("%s%v: got %v, want %v", family, pairs, got, want)
	}
}

// unaryRequest is a request with a procedure.
type unaryRequest struct {
	*connect.Request[userv1.GetUserRequest]

	spec connect.Spec
}

func (r unaryRequest) Spec() connect.Spec { return r.spec }

func getUser(procedure string) unaryRequest {
	return unaryRequest{connect.NewRequest(&userv1.GetUserRequest{}), connect.Spec{Procedure: procedure}}
}

// fakeConn is a stream with a number of received messages.
type fakeConn struct {
	connect.StreamingHandlerConn

	spec     connect.Spec
	incoming int
	mu       sync.Mutex
}

func (c *fakeConn) Spec() connect.Spec       { return c.spec }
func (*fakeConn) Peer() connect.Peer         { return connect.Peer{} }
func (*fakeConn) RequestHeader() http.Header { return nil }
func (c *fakeConn) Send(any) error           { return nil }
func (c *fakeConn) Receive(any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.incoming == 0 {
		return errors.New("end of the stream")
	}
	c.incoming--
	return nil
}

func TestSeriesExistForEveryMethod(t *testing.T) {
	_, registry := newMetrics(t)
	kinds := map[string]string{
		"GetUser": "unary", "BatchCreateUsers": "client_stream",
		"StreamUserActivities": "server_stream", "SyncUserStatus": "bidi_stream",
	}
	services := userv1.File_user_v1_user_service_proto.Services()
	methods := services.Get(0).Methods()
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		labels := []string{"grpc_service", "user.v1.UserService", "grpc_method", name}
		if kind := kinds[name]; kind != "" {
			labels = append(labels, "grpc_type", kind)
		}
		for _, family := range []string{
			"grpc_server_started_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total", "grpc_server_handling_seconds",
		} {
			if got := len(series(t, registry, family, labels...)); got != 1 {
				t.Errorf("%s of %s: got %d series, want 1", family, name, got)
			}
		}
		if got := len(series(t, registry, "grpc_server_handled_total", labels...)); got != 17 {
			t.Errorf("codes of %s: got %d, want 17", name, got)
		}
		if got := len(series(t, registry, "grpc_request_duration_seconds", "method", "/user.v1.UserService/"+name, "status", "OK")); got != 1 {
			t.Errorf("durations of %s: got %d series, want 1", name, got)
		}
	}
	if len(series(t, registry, "userd_open_streams")) != 6 {
		t.Error("want the gauge of open streams for the six streams and nothing else")
	}
}

func TestUnaryCallsAreCountedByCode(t *testing.T) {
	m, registry := newMetrics(t)
	const procedure = userv1connect.UserServiceGetUserProcedure
	for code, err := range map[string]error{
		"OK":               nil,
		"NotFound":         connect.NewError(connect.CodeNotFound, errors.New("gone")),
		"Unauthenticated":  connect.NewError(connect.CodeUnauthenticated, errors.New("no credentials")),
		"Canceled":         context.Canceled,
		"DeadlineExceeded": context.DeadlineExceeded,
		"Unknown":          errors.New("plain"),
	} {
		next := m.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, err })
		if _, got := next(t.Context(), getUser(procedure)); !errors.Is(got, err) {
			t.Errorf("%s: error = %v", code, got)
		}
		check(t, registry, 1, "grpc_server_handled_total", "grpc_method", "GetUser", "grpc_code", code)
		check(t, registry, 1, "grpc_request_duration_seconds", "method", procedure, "status", code)
	}
	check(t, registry, 6, "grpc_server_started_total", "grpc_method", "GetUser")
	check(t, registry, 6, "grpc_server_handled_total")
	check(t, registry, 6, "grpc_server_msg_received_total", "grpc_method", "GetUser")
	check(t, registry, 1, "grpc_server_msg_sent_total", "grpc_method", "GetUser")
	check(t, registry, 6, "grpc_server_handling_seconds", "grpc_method", "GetUser")
	check(t, registry, 0, "grpc_server_started_total", "grpc_method", "ListUsers")
}

func TestNotModifiedAndUnknownCodes(t *testing.T) {
	m, registry := newMetrics(t)
	for _, err := range []error{
		connect.NewNotModifiedError(http.Header{}),
		connect.NewError(connect.Code(99), errors.New("no such code")),
	} {
		next := m.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, err })
		_, _ = next(t.Context(), getUser(userv1connect.UserServiceGetUserProcedure))
	}
	check(t, registry, 1, "grpc_server_handled_total", "grpc_code", "OK")
	check(t, registry, 1, "grpc_server_handled_total", "grpc_code", "Unknown")
}

func TestStreamsAndMessagesAreCounted(t *testing.T) {
	m, registry := newMetrics(t)
	conn := &fakeConn{
		spec:     connect.Spec{Procedure: userv1connect.UserServiceSyncUserStatusProcedure, StreamType: connect.StreamTypeBidi},
		incoming: 2,
	}
	next := m.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		check(t, registry, 1, "userd_open_streams", "grpc_method", "SyncUserStatus")
		_ = conn.Send(nil) // the header is no message
		for conn.Receive(nil) == nil {
			_ = conn.Send(new(userv1.UserStatusUpdate))
		}
		return connect.NewError(connect.CodeUnavailable, errors.New("draining"))
	})
	_ = next(t.Context(), conn)
	method := []string{"grpc_type", "bidi_stream", "grpc_method", "SyncUserStatus"}
	check(t, registry, 0, "userd_open_streams", method...)
	check(t, registry, 2, "grpc_server_msg_received_total", method...)
	check(t, registry, 2, "grpc_server_msg_sent_total", method...)
	check(t, registry, 1, "grpc_server_handled_total", append(method, "grpc_code", "Unavailable")...)
}

func TestUnknownProceduresCreateNoSeries(t *testing.T) {
	m, registry := newMetrics(t)
	count := func() (n int) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	before, called := count(), 0
	unary := m.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { called++; return nil, nil })
	stream := m.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { called++; return nil })
	for _, procedure := range []string{"", "/user.v1.UserService/getuser", "/grpc.health.v1.Health/Check", "/" + strings.Repeat("x", 1000)} {
		_, _ = unary(t.Context(), getUser(procedure))
		_ = stream(t.Context(), &fakeConn{spec: connect.Spec{Procedure: procedure}})
	}
	if after := count(); after != before || called != 8 {
		t.Errorf("series: %d before, %d after; %d of 8 calls went through", before, after, called)
	}
}

func TestPanickingCallsAreCounted(t *testing.T) {
	m, registry := newMetrics(t)
	abort := func() { panic(http.ErrAbortHandler) }
	survive := func(run func()) {
		defer func() {
			if recover() != http.ErrAbortHandler { //nolint:errorlint // identity
				t.Error("the panic was not propagated")
			}
		}()
		run()
	}
	survive(func() {
		_ = m.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { abort(); return nil })(
			t.Context(), &fakeConn{spec: connect.Spec{Procedure: userv1connect.UserServiceWatchUserStatusProcedure}})
	})
	survive(func() {
		_, _ = m.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { abort(); return nil, nil })(
			t.Context(), getUser(userv1connect.UserServiceGetUserProcedure))
	})
	check(t, registry, 0, "userd_open_streams")
	check(t, registry, 2, "grpc_server_handled_total", "grpc_code", "Unknown")
}

func sampledContext(ctx context.Context) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4}, TraceFlags: trace.FlagsSampled,
	}))
}

func TestSampledTracesAreExemplars(t *testing.T) {
	m, registry := newMetrics(t)
	next := m.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, nil })
	examples := func() (ids []string) {
		for _, family := range []string{"grpc_server_handling_seconds", "grpc_request_duration_seconds"} {
			for _, s := range series(t, registry, family) {
				for _, bucket := range s.GetHistogram().GetBucket() {
					for _, label := range bucket.GetExemplar().GetLabel() {
						ids = append(ids, label.GetName()+"="+label.GetValue())
					}
				}
			}
		}
		return ids
	}
	_, _ = next(t.Context(), getUser(userv1connect.UserServiceGetUserProcedure))
	if got := examples(); len(got) != 0 {
		t.Fatalf("exemplar of an unsampled call = %v, want none", got)
	}
	_, _ = next(sampledContext(t.Context()), getUser(userv1connect.UserServiceGetUserProcedure))
	if got := examples(); len(got) != 2 || got[0] != "trace_id=01020300000000000000000000000000" {
		t.Errorf("exemplar = %v", got)
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	_, registry := newMetrics(t)
	if _, err := intercept.NewObserver(intercept.ObserverOptions{Logger: slog.New(slog.DiscardHandler), Interval: time.Second, Registry: registry}); err == nil {
		t.Error("second NewObserver() = nil error, want error")
	}
}

func TestMetricsConcurrently(t *testing.T) {
	m, registry := newMetrics(t)
	failure := connect.NewError(connect.CodeAborted, errors.New("etag"))
	next := m.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, failure })
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 500 {
				_, _ = next(t.Context(), getUser(userv1connect.UserServiceUpdateUserProcedure))
			}
		})
	}
	calls.Wait()
	check(t, registry, 4000, "grpc_request_duration_seconds", "status", "Aborted")
	check(t, registry, 4000, "grpc_server_handled_total", "grpc_code", "Aborted")
}

func BenchmarkMetrics(b *testing.B) {
	m, _ := newMetrics(b)
	bare := func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, nil }
	request := connect.AnyRequest(getUser(userv1connect.UserServiceGetUserProcedure))
	for name, run := range map[string]struct {
		ctx  context.Context //nolint:containedctx // a case of the benchmark
		next connect.UnaryFunc
	}{
		"none":    {b.Context(), bare},
		"unary":   {b.Context(), m.WrapUnary(bare)},
		"sampled": {sampledContext(b.Context()), m.WrapUnary(bare)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = run.next(run.ctx, request)
			}
		})
	}
	b.Run("message", func(b *testing.B) {
		message := new(userv1.UserStatusUpdate)
		spec := connect.Spec{Procedure: userv1connect.UserServiceWatchUserStatusProcedure}
		_ = m.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			b.ReportAllocs()
			for b.Loop() {
				_ = conn.Send(message)
			}
			return nil
		})(b.Context(), &fakeConn{spec: spec})
	})
}
