package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
)

// setenv sets the variables and clears the other exporter variables.
func setenv(t *testing.T, set map[string]string) {
	t.Helper()
	for _, name := range []string{
		"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
		"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_PROPAGATORS", "OTEL_BSP_MAX_QUEUE_SIZE",
	} {
		t.Setenv(name, set[name])
	}
}

func TestTracingEnvironment(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, c := range []struct {
		env     map[string]string
		enabled bool
		err     string
	}{
		{env: nil},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "none"}},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}},
		{env: map[string]string{"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "console"}},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, enabled: true},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/x"}, enabled: true},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, enabled: true},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, enabled: true},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "console, none"}, enabled: true},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, err: "OTEL_TRACES_EXPORTER=zipkin: expected otlp, console or none"},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "console,zipkin"}, err: "OTEL_TRACES_EXPORTER=zipkin"},
		{
			env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
			err: "OTEL_EXPORTER_OTLP_PROTOCOL=http/json: expected http/protobuf or grpc",
		},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": " OTLP ", "OTEL_EXPORTER_OTLP_PROTOCOL": "GRPC"}, enabled: true},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp,otlp,"}, enabled: true},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "ParentBased_TraceIDRatio"}, enabled: true},
		{env: map[string]string{"OTEL_PROPAGATORS": "b3"}, err: "OTEL_PROPAGATORS=b3: expected tracecontext, baggage or none"},
		{env: map[string]string{"OTEL_PROPAGATORS": "none"}},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_RESOURCE_ATTRIBUTES": "a=b,nonsense"}, enabled: true},
		{
			env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_PROPAGATORS": "jaeger"},
			err: "OTEL_PROPAGATORS=jaeger: expected tracecontext, baggage or none\nOTEL_TRACES_EXPORTER=zipkin",
		},
		{env: map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "zipkin", "OTEL_PROPAGATORS": "b3"}},
	} {
		setenv(t, c.env)
		tracing, err := NewTracing(t.Context(), TracingOptions{Service: "userd", Console: io.Discard})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("NewTracing with %v = %v, want %s", c.env, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("NewTracing with %v = %v", c.env, err)
			continue
		}
		interceptors, err := tracing.Interceptors(speaks)
		if err != nil || tracing.Enabled() != c.enabled || (len(interceptors) > 0) != c.enabled {
			t.Errorf("NewTracing with %v: enabled %v, %d interceptors, %v", c.env, tracing.Enabled(), len(interceptors), err)
		}
		if err := tracing.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown with %v = %v", c.env, err)
		}
	}
}

func TestExportedSpansHaveResourceAttributes(t *testing.T) {
	defer goleak.VerifyNone(t)
	var got collector.ExportTraceServiceRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &got)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: got %v", r.URL.Path, err)
		}
		w.WriteHeader(http.StatusOK)
	}))
	setenv(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.name=mine",
	})
	tracing, err := NewTracing(t.Context(), TracingOptions{Service: "userd", Version: "v9", Instance: "i1"})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tracing.Provider().Tracer("test").Start(t.Context(), "hello")
	span.End()
	if err := tracing.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Close()
	about := make(map[string]string)
	for _, a := range got.GetResourceSpans()[0].GetResource().GetAttributes() {
		about[a.GetKey()] = a.GetValue().GetStringValue()
	}
	for key, value := range map[string]string{
		"service.name": "mine", "service.version": "v9", "service.instance.id": "i1", "deployment.environment.name": "test",
		"telemetry.sdk.language": "go",
	} {
		if about[key] != value {
			t.Errorf("resource attribute %s = %q, want %q", key, about[key], value)
		}
	}
	if name := got.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()[0].GetName(); name != "hello" {
		t.Errorf("span name = %q", name)
	}
}

type brokenExporter struct {
	sdktrace.SpanExporter

	err error
}

func (e *brokenExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return e.err }

func TestExportFailureIsLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	inner := &brokenExporter{err: errors.New("refused")}
	var lost droppedSpans
	e := &loggingExporter{SpanExporter: inner, log: slog.New(slog.NewTextHandler(&out, nil)), all: &lost, waiting: new(atomic.Int64)}
	batch := make([]sdktrace.ReadOnlySpan, 5)
	for range 3 {
		if err := e.ExportSpans(t.Context(), batch); err != nil {
			t.Error(err)
		}
	}
	inner.err = nil
	_ = e.ExportSpans(t.Context(), batch)
	_ = e.ExportSpans(t.Context(), batch)
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 ||
		!strings.Contains(lines[0], "refused") || !strings.Contains(lines[1], "dropped=15") {
		t.Errorf("log = %q", lines)
	}
	if got := lost.exportFailed.Load(); got != 15 {
		t.Errorf("dropped spans = %d", got)
	}
}

// stuckExporter blocks until it is released.
type stuckExporter struct {
	sdktrace.SpanExporter

	letGo chan struct{}
	taken atomic.Int64
}

func (e *stuckExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	<-e.letGo
	e.taken.Add(int64(len(spans)))
	return nil
}

func (e *stuckExporter) Shutdown(context.Context) error { return nil }

// Every span is either exported or counted as dropped.
func TestDroppedSpansAreCounted(t *testing.T) {
	defer goleak.VerifyNone(t)
	stuck := &stuckExporter{letGo: make(chan struct{})}
	tracing := &Tracing{}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(
		newQueue(stuck, 8, slog.New(slog.DiscardHandler), &tracing.lost)))
	for range 20 {
		_, span := provider.Tracer("test").Start(t.Context(), "hello")
		span.End()
	}
	queueFull, exportFailed := tracing.Dropped()
	close(stuck.letGo)
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken := stuck.taken.Load(); queueFull != 12 || exportFailed != 0 || taken != 8 {
		t.Errorf("%d dropped by the queue, %d by the export, %d exported", queueFull, exportFailed, taken)
	}
}

// An invalid resource attribute is ignored, and not quoted in the log.
func TestInvalidResourceAttributeIsAWarning(t *testing.T) {
	var out, spans bytes.Buffer
	setenv(t, map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_RESOURCE_ATTRIBUTES": "team=blue,hunter2"})
	tracing, err := NewTracing(t.Context(), TracingOptions{
		Service: "userd", Console: &spans, Logger: slog.New(slog.NewTextHandler(&out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tracing.Provider().Tracer("test").Start(t.Context(), "hello")
	span.End()
	if err := tracing.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if line := out.String(); strings.Count(line, "level=WARN") != 1 || strings.Contains(line, "hunter2") {
		t.Errorf("log = %q", line)
	}
	for _, want := range []string{`"team"`, `"blue"`, `"userd"`} {
		if !strings.Contains(spans.String(), want) {
			t.Errorf("no %s in %s", want, spans.String())
		}
	}
}

// speaks returns the protocol of a call.
func speaks(_ context.Context, peer connect.Peer) string { return peer.Protocol }

// newTracing returns tracing with a provider.
func newTracing(provider trace.TracerProvider, trust bool, shutdown func(context.Context) error) *Tracing {
	return &Tracing{
		provider: provider, trust: trust, enabled: true, propagates: true, shutdown: shutdown,
		propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
}

// recording returns tracing with a span recorder.
func recording(trust bool, options ...sdktrace.TracerProviderOption) (*Tracing, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithSpanProcessor(recorder))...)
	return newTracing(provider, trust, provider.Shutdown), recorder
}

const (
	remoteTrace = "0af7651916cd43dd8448eb211c80319c"
	remoteSpan  = "00-" + remoteTrace + "-b7ad6b7169203331-01"
)

// call sends a call with a remote parent span to a handler.
func call(t *testing.T, tracing *Tracing, procedure string, inside func(context.Context) error) {
	t.Helper()
	interceptors, err := tracing.Interceptors(speaks)
	if err != nil {
		t.Fatal(err)
	}
	handler := connect.NewUnaryHandler(procedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			if err := inside(ctx); err != nil {
				return nil, err
			}
			return connect.NewResponse(new(emptypb.Empty)), nil
		}, connect.WithInterceptors(interceptors...))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, procedure, strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Traceparent", remoteSpan)
	r.Header.Set("User-Agent", "secret-agent")
	r.Header.Set("Authorization", "Bearer abcdefghijklmnop")
	handler.ServeHTTP(httptest.NewRecorder(), r)
}

func TestCallerSpanIsLinkedOrParent(t *testing.T) {
	for _, trust := range []bool{false, true} {
		tracing, recorder := recording(trust)
		var inside trace.SpanContext
		call(t, tracing, "/x.Y/Z", func(ctx context.Context) error {
			inside = trace.SpanContextFromContext(ctx)
			return connect.NewError(connect.CodeNotFound, errors.New("no"))
		})
		spans := recorder.Ended()
		if len(spans) != 1 || spans[0].Name() != "x.Y/Z" || spans[0].SpanKind() != trace.SpanKindServer {
			t.Fatalf("spans = %v", spans)
		}
		span := spans[0]
		if !inside.Equal(span.SpanContext()) {
			t.Error("the handler has no span in its context")
		}
		joined := span.SpanContext().TraceID().String() == remoteTrace
		startLinked := slices.ContainsFunc(span.Links(), func(l sdktrace.Link) bool { return l.SpanContext.TraceID().String() == remoteTrace })
		if joined != trust || startLinked == trust {
			t.Errorf("trust %v: joined %v, linked %v", trust, joined, startLinked)
		}
		for _, a := range span.Attributes() {
			if !slices.Contains([]attribute.Key{"rpc.system.name", "rpc.method", "userd.protocol", "rpc.response.status_code", "error.type"}, a.Key) {
				t.Errorf("span has attribute %s=%s", a.Key, a.Value.String())
			}
		}
	}
}

func TestUntrustedCallerCannotForceSampling(t *testing.T) {
	never := sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))
	for _, trust := range []bool{false, true} {
		tracing, recorder := recording(trust, never)
		call(t, tracing, "/x.Y/Z", func(context.Context) error { return nil })
		if got := len(recorder.Ended()) == 1; got != trust {
			t.Errorf("trust %v: sampled %v", trust, got)
		}
	}
}

func TestHealthAndReflectionHaveNoSpans(t *testing.T) {
	tracing, recorder := recording(true)
	var calls atomic.Int32
	for _, procedure := range []string{"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		call(t, tracing, procedure, func(context.Context) error { calls.Add(1); return nil })
	}
	if len(recorder.Started()) != 0 || calls.Load() != 2 {
		t.Errorf("%d spans, %d calls", len(recorder.Started()), calls.Load())
	}
}

func BenchmarkTracedUnary(b *testing.B) {
	off := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	on := sdktrace.NewTracerProvider()
	for name, provider := range map[string]*sdktrace.TracerProvider{"unsampled": off, "recorded": on} {
		interceptors, err := newTracing(provider, false, nil).Interceptors(speaks)
		if err != nil {
			b.Fatal(err)
		}
		next := connect.UnaryFunc(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return connect.NewResponse(new(emptypb.Empty)), nil
		})
		for _, interceptor := range slices.Backward(interceptors) {
			next = interceptor.WrapUnary(next)
		}
		request := connect.NewRequest(new(emptypb.Empty))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = next(b.Context(), request)
			}
		})
	}
}
