package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
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
	Console     io.Writer    // for the exporter "console"; nil: standard error
	Logger      *slog.Logger // for failures to export
}

// Tracing makes spans. Off, it makes none and costs nothing.
type Tracing struct {
	provider   trace.TracerProvider
	propagator propagation.TextMapPropagator
	trust      bool
	enabled    bool
	shutdown   func(context.Context) error
}

// SetUpTracing follows the standard variables of OpenTelemetry:
//
//   - OTEL_TRACES_EXPORTER: otlp, console, none, or several with commas; without it
//     otlp if an endpoint is named, and otherwise none;
//   - OTEL_EXPORTER_OTLP_PROTOCOL and OTEL_EXPORTER_OTLP_TRACES_PROTOCOL:
//     http/protobuf, the default, or grpc;
//   - OTEL_SDK_DISABLED: true turns tracing off;
//   - OTEL_EXPORTER_OTLP_*, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SPAN_* and
//     OTEL_RESOURCE_ATTRIBUTES as the SDK reads them.
//
// It sets nothing for the whole process. It does not wait for a collector: one that
// cannot be reached is logged, and its spans are lost. The error is meant for the
// person who starts the program.
func SetUpTracing(ctx context.Context, opts TracingOptions) (*Tracing, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Console == nil {
		opts.Console = os.Stderr
	}
	exporters, err := newExporters(ctx, opts)
	if err != nil {
		return nil, err
	}
	if len(exporters) == 0 {
		return TracingOff(), nil
	}
	about, err := newResource(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("describe the service for traces: %w", err)
	}
	settings := []sdktrace.TracerProviderOption{sdktrace.WithResource(about)}
	for _, exporter := range exporters {
		settings = append(settings, sdktrace.WithBatcher(&loudExporter{SpanExporter: exporter, log: opts.Logger}))
	}
	provider := sdktrace.NewTracerProvider(settings...)
	return newTracing(provider, opts.TrustRemote, provider.Shutdown), nil
}

// TracingOff returns tracing that makes no spans.
func TracingOff() *Tracing {
	t := newTracing(noop.NewTracerProvider(), false, func(context.Context) error { return nil })
	t.enabled = false
	return t
}

func newTracing(provider trace.TracerProvider, trust bool, shutdown func(context.Context) error) *Tracing {
	return &Tracing{
		provider: provider, trust: trust, enabled: true, shutdown: shutdown,
		propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
}

func newResource(ctx context.Context, opts TracingOptions) (*resource.Resource, error) {
	own := []attribute.KeyValue{
		attribute.String("service.name", opts.Service),
		attribute.String("service.version", opts.Version),
	}
	if opts.Instance != "" {
		own = append(own, attribute.String("service.instance.id", opts.Instance))
	}
	// What the environment says comes last, and so wins.
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(own...), resource.WithFromEnv())
}

func newExporters(ctx context.Context, opts TracingOptions) (exporters []sdktrace.SpanExporter, err error) {
	for _, name := range exporterNames() {
		var exporter sdktrace.SpanExporter
		switch name {
		case "none", "":
			continue
		case "otlp":
			exporter, err = newOTLP(ctx)
		case "console":
			exporter, err = stdouttrace.New(stdouttrace.WithWriter(opts.Console))
		default:
			err = errors.New("expected otlp, console or none")
		}
		if err != nil {
			for _, made := range exporters {
				err = errors.Join(err, made.Shutdown(ctx))
			}
			return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: %w", name, err)
		}
		exporters = append(exporters, exporter)
	}
	return exporters, nil
}

// exporterNames follows the standard but for one thing: without any variable nothing
// is exported, in place of trying a collector on this machine for ever.
func exporterNames() []string {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil
	}
	names := os.Getenv("OTEL_TRACES_EXPORTER")
	if names == "" && (os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "") {
		names = "otlp"
	}
	list := strings.Split(names, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func newOTLP(ctx context.Context) (sdktrace.SpanExporter, error) {
	name := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	protocol := os.Getenv(name)
	if protocol == "" {
		name = "OTEL_EXPORTER_OTLP_PROTOCOL"
		protocol = os.Getenv(name)
	}
	switch protocol {
	case "", "http/protobuf":
		return otlptracehttp.New(ctx)
	case "grpc":
		return otlptracegrpc.New(ctx)
	}
	return nil, fmt.Errorf("%s=%s: expected http/protobuf or grpc", name, protocol)
}

// Enabled reports whether spans are made.
func (t *Tracing) Enabled() bool { return t.enabled }

// Provider makes tracers, for the parts that make spans of their own.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// Shutdown exports what is left, as long as the context allows, and ends tracing. It
// comes after the last call.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if err := t.shutdown(ctx); err != nil {
		return fmt.Errorf("export the last spans: %w", err)
	}
	return nil
}

// Interceptors are what makes spans of calls; they belong outside all others. There
// are none when tracing is off.
//
// Unary calls and client streams have one span from beginning to end. Streams to the
// caller, which may last for days, have short ones, see StreamSpans. Health and
// reflection have none. Spans carry neither addresses nor headers of callers.
func (t *Tracing) Interceptors() ([]connect.Interceptor, error) {
	if !t.enabled {
		return nil, nil
	}
	options := []otelconnect.Option{
		otelconnect.WithTracerProvider(t.provider),
		otelconnect.WithPropagator(t.propagator),
		otelconnect.WithoutMetrics(), // Prometheus has them
		otelconnect.WithFilter(func(_ context.Context, spec connect.Spec) bool {
			return !lasting(spec) && traced(spec)
		}),
	}
	if t.trust {
		options = append(options, otelconnect.WithTrustRemote())
	}
	calls, err := otelconnect.NewInterceptor(options...)
	if err != nil {
		return nil, fmt.Errorf("trace calls: %w", err)
	}
	return []connect.Interceptor{calls, newStreamSpans(t)}, nil
}

// lasting reports whether a call has no end of its own.
func lasting(spec connect.Spec) bool {
	return spec.StreamType == connect.StreamTypeServer || spec.StreamType == connect.StreamTypeBidi
}

// traced leaves out what balancers and tools ask all the time.
func traced(spec connect.Spec) bool {
	return !strings.HasPrefix(spec.Procedure, "/grpc.health.") && !strings.HasPrefix(spec.Procedure, "/grpc.reflection.")
}
