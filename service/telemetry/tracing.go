package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TracingOptions configure tracing. The destination is configured by the environment.
type TracingOptions struct {
	Service  string // service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES is set
	Version  string // service.version
	Instance string // service.instance.id; empty: none
	// TrustRemote makes the caller's span the parent of the call's span and uses the caller's
	// sampling decision. Otherwise the caller's span is only linked, so that an untrusted
	// caller cannot force sampling or join traces.
	TrustRemote bool
	Console     io.Writer    // output of the exporter "console"; nil: standard output
	Logger      *slog.Logger // for export failures
}

// Tracing creates spans. When disabled it creates none, at no cost.
type Tracing struct {
	provider   trace.TracerProvider
	propagator propagation.TextMapPropagator
	trust      bool
	enabled    bool
	propagates bool // the tracecontext propagator is enabled
	lost       droppedSpans
	shutdown   func(context.Context) error
}

// NewTracing configures tracing by the standard OpenTelemetry variables:
//
//   - OTEL_TRACES_EXPORTER: a comma-separated list of otlp, console and none; default otlp
//     if an endpoint is set, else none;
//   - OTEL_EXPORTER_OTLP_PROTOCOL and OTEL_EXPORTER_OTLP_TRACES_PROTOCOL:
//     http/protobuf (default) or grpc;
//   - OTEL_PROPAGATORS: tracecontext, baggage or none; default tracecontext,baggage;
//   - OTEL_SDK_DISABLED: true disables tracing;
//   - OTEL_EXPORTER_OTLP_*, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SPAN_* and
//     OTEL_RESOURCE_ATTRIBUTES as the SDK reads them.
//
// An unknown value of the first three is an error. The SDK logs invalid values of the others and
// uses their defaults.
//
// NewTracing sets no process-wide defaults; see SDKLog. It does not wait for a collector:
// failed exports are logged and their spans dropped.
func NewTracing(ctx context.Context, opts TracingOptions) (*Tracing, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Console == nil {
		opts.Console = os.Stdout // not stderr, which has the log
	}
	env, err := readEnvironment()
	if err != nil {
		return nil, err
	}
	exporters, err := env.newExporters(ctx, opts)
	if err != nil {
		return nil, err
	}
	t := &Tracing{propagator: env.propagator, propagates: env.propagates, trust: opts.TrustRemote}
	if len(exporters) == 0 {
		t.provider, t.shutdown = noop.NewTracerProvider(), noShutdown
		return t, nil
	}
	settings := []sdktrace.TracerProviderOption{sdktrace.WithResource(newResource(ctx, opts))}
	for _, exporter := range exporters {
		settings = append(settings, sdktrace.WithSpanProcessor(newQueue(exporter, env.queue, opts.Logger, &t.lost)))
	}
	provider := sdktrace.NewTracerProvider(settings...)
	t.provider, t.shutdown, t.enabled = provider, provider.Shutdown, true
	return t, nil
}

// DisabledTracing returns disabled tracing that trusts no caller.
func DisabledTracing() *Tracing {
	return &Tracing{
		provider: noop.NewTracerProvider(), propagator: propagation.TraceContext{}, propagates: true, shutdown: noShutdown,
	}
}

func noShutdown(context.Context) error { return nil }

func newResource(ctx context.Context, opts TracingOptions) *resource.Resource {
	own := []attribute.KeyValue{
		attribute.String("service.name", opts.Service),
		attribute.String("service.version", opts.Version),
	}
	if opts.Instance != "" {
		own = append(own, attribute.String("service.instance.id", opts.Instance))
	}
	// The environment is last and takes precedence.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(own...), resource.WithFromEnv())
	if err != nil {
		// The other attributes are kept.
		opts.Logger.LogAttrs(ctx, slog.LevelWarn, "invalid OTEL_RESOURCE_ATTRIBUTES entry ignored, expected key=value pairs separated by commas")
	}
	return about
}

// Enabled reports whether spans are created.
func (t *Tracing) Enabled() bool { return t.enabled }

// Provider returns the tracer provider.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// Dropped returns the number of spans dropped because the queue was full and because the
// export failed.
func (t *Tracing) Dropped() (queueFull, exportFailed int64) {
	return t.lost.queueFull.Load(), t.lost.exportFailed.Load()
}

// Shutdown exports the remaining spans until ctx is done. Call it after the last request.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if err := t.shutdown(ctx); err != nil {
		return fmt.Errorf("export remaining spans: %w", redactValues(err))
	}
	return nil
}

// Interceptors returns the tracing interceptors, none if tracing is disabled. They belong
// outside all others.
//
// A call has one span, which is exported when it ends. Health and reflection have none. Spans
// contain no addresses or headers. protocol returns the protocol
// of a call, because REST calls look like Connect here.
func (t *Tracing) Interceptors(protocol func(context.Context, connect.Peer) string) ([]connect.Interceptor, error) {
	if !t.enabled {
		return nil, nil
	}
	options := []otelconnect.Option{
		otelconnect.WithTracerProvider(t.provider),
		otelconnect.WithPropagator(t.propagator),
		otelconnect.WithoutMetrics(), // provided by Prometheus
		otelconnect.WithFilter(func(_ context.Context, spec connect.Spec) bool {
			return !strings.HasPrefix(spec.Procedure, "/grpc.health.") && !strings.HasPrefix(spec.Procedure, "/grpc.reflection.")
		}),
	}
	if t.trust {
		options = append(options, otelconnect.WithTrustRemote())
	}
	calls, err := otelconnect.NewInterceptor(options...)
	if err != nil {
		return nil, fmt.Errorf("trace calls: %w", err)
	}
	return []connect.Interceptor{calls, callSpans{protocol}}, nil
}

// callSpans is an interceptor that adds the protocol to the span of a call.
//
// The context of a stream of responses has the ids of its span, but not the span itself: a store
// span for each read would make a trace of any size.
type callSpans struct {
	protocol func(context.Context, connect.Peer) string
}

const protocolAttribute = "userd.protocol"

// WrapUnary adds the protocol of a unary call.
func (s callSpans) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if span := trace.SpanFromContext(ctx); span.IsRecording() {
			span.SetAttributes(attribute.String(protocolAttribute, s.protocol(ctx, req.Peer())))
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient returns next unchanged.
func (callSpans) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler adds the protocol of a stream.
func (s callSpans) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if span := trace.SpanFromContext(ctx); span.IsRecording() {
			span.SetAttributes(attribute.String(protocolAttribute, s.protocol(ctx, conn.Peer())))
			if conn.Spec().StreamType&connect.StreamTypeServer != 0 {
				ctx = trace.ContextWithSpanContext(ctx, span.SpanContext())
			}
		}
		return next(ctx, conn)
	}
}
