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

// TracingOptions say what spans tell of themselves and whom they trust. Where they go
// is for the environment to say.
type TracingOptions struct {
	Service  string // service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES name another
	Version  string // service.version
	Instance string // service.instance.id; empty: none
	// TrustRemote makes a caller's span the parent of the call's, and leaves to the
	// caller whether the trace is kept. Otherwise a caller's span is linked only: a
	// stranger must neither make the service record everything nor join traces.
	TrustRemote bool
	Console     io.Writer    // for the exporter "console"; nil: standard output
	Logger      *slog.Logger // for failures to export
}

// Tracing makes spans. Off, it makes none and costs nothing.
type Tracing struct {
	provider   trace.TracerProvider
	propagator propagation.TextMapPropagator
	trust      bool
	enabled    bool
	joins      bool // a caller's traceparent is understood
	lost       lostSpans
	shutdown   func(context.Context) error
}

// SetUpTracing follows the standard variables of OpenTelemetry:
//
//   - OTEL_TRACES_EXPORTER: otlp, console, none, or several with commas; without it
//     otlp if an endpoint is named, and otherwise none;
//   - OTEL_EXPORTER_OTLP_PROTOCOL and OTEL_EXPORTER_OTLP_TRACES_PROTOCOL:
//     http/protobuf, the default, or grpc;
//   - OTEL_PROPAGATORS: tracecontext, baggage or none; without it the first two;
//   - OTEL_SDK_DISABLED: true turns tracing off;
//   - OTEL_EXPORTER_OTLP_*, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SPAN_* and
//     OTEL_RESOURCE_ATTRIBUTES as the SDK reads them.
//
// A value among the first four, or of a sampler or an endpoint, that is not known is an
// error, meant for the person who starts the program. An attribute of the resource that
// cannot be read is left out, with a warning.
//
// It sets nothing for the whole process; see SDKLog for what the program should. It does
// not wait for a collector: one that cannot be reached is logged, and its spans are lost.
func SetUpTracing(ctx context.Context, opts TracingOptions) (*Tracing, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Console == nil {
		opts.Console = os.Stdout // not among the lines of the log
	}
	env, err := readEnvironment()
	if err != nil {
		return nil, err
	}
	exporters, err := env.newExporters(ctx, opts)
	if err != nil {
		return nil, err
	}
	t := &Tracing{propagator: env.propagator, joins: env.joins, trust: opts.TrustRemote}
	if len(exporters) == 0 {
		t.provider, t.shutdown = noop.NewTracerProvider(), endNothing
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

// TracingOff returns tracing that makes no spans, and trusts nobody's.
func TracingOff() *Tracing {
	return &Tracing{
		provider: noop.NewTracerProvider(), propagator: propagation.TraceContext{}, joins: true, shutdown: endNothing,
	}
}

func endNothing(context.Context) error { return nil }

func newResource(ctx context.Context, opts TracingOptions) *resource.Resource {
	own := []attribute.KeyValue{
		attribute.String("service.name", opts.Service),
		attribute.String("service.version", opts.Version),
	}
	if opts.Instance != "" {
		own = append(own, attribute.String("service.instance.id", opts.Instance))
	}
	// What the environment says comes last, and so wins.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(own...), resource.WithFromEnv())
	if err != nil {
		// The rest describes the service well enough.
		opts.Logger.LogAttrs(ctx, slog.LevelWarn, "a part of OTEL_RESOURCE_ATTRIBUTES is left out: expected key=value pairs with commas between them")
	}
	return about
}

// Enabled reports whether spans are made.
func (t *Tracing) Enabled() bool { return t.enabled }

// Provider makes tracers, for the parts that make spans of their own.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// Lost is how many spans were recorded and are lost: for want of room in the queue,
// and since the collector did not take them.
func (t *Tracing) Lost() (crowded, unserved int64) {
	return t.lost.crowded.Load(), t.lost.unserved.Load()
}

// Shutdown exports what is left, as long as the context allows, and ends tracing. It
// comes after the last call.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if err := t.shutdown(ctx); err != nil {
		return fmt.Errorf("export the last spans: %w", withoutValues(err))
	}
	return nil
}

// Interceptors are what makes spans of calls; they belong outside all others. There
// are none when tracing is off.
//
// Unary calls have one span from beginning to end. Streams, which may last for days,
// have short ones, see streamSpans. Health and
// reflection have none. Spans carry neither addresses nor headers of callers; protocol
// says what the caller of a call speaks, since REST looks like Connect from here.
func (t *Tracing) Interceptors(protocol func(context.Context, connect.Peer) string) ([]connect.Interceptor, error) {
	if !t.enabled {
		return nil, nil
	}
	options := []otelconnect.Option{
		otelconnect.WithTracerProvider(t.provider),
		otelconnect.WithPropagator(t.propagator),
		otelconnect.WithoutMetrics(), // Prometheus has them
		otelconnect.WithFilter(func(_ context.Context, spec connect.Spec) bool {
			return spec.StreamType == connect.StreamTypeUnary && traced(spec)
		}),
	}
	if t.trust {
		options = append(options, otelconnect.WithTrustRemote())
	}
	calls, err := otelconnect.NewInterceptor(options...)
	if err != nil {
		return nil, fmt.Errorf("trace calls: %w", err)
	}
	return []connect.Interceptor{calls, newStreamSpans(t, protocol)}, nil
}

// traced leaves out what balancers and tools ask all the time.
func traced(spec connect.Spec) bool {
	return !strings.HasPrefix(spec.Procedure, "/grpc.health.") && !strings.HasPrefix(spec.Procedure, "/grpc.reflection.")
}
