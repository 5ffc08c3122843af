package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	exporterOTLP    = "otlp"
	exporterConsole = "console"
	valueNone       = "none"

	// defaultSpanQueue is the SDK's default of OTEL_BSP_MAX_QUEUE_SIZE.
	defaultSpanQueue = 2048
)

// endpointVariables hold collector URLs.
var endpointVariables = []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}

type environment struct {
	exporters  []string // otlp, console
	protocol   string   // of the otlp exporter
	propagator propagation.TextMapPropagator
	propagates bool // the tracecontext propagator is enabled
	queue      int  // maximum number of queued spans
}

// readEnvironment reads the variables. An invalid value is an error if it is used.
func readEnvironment() (e environment, err error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		e.propagator, e.propagates = propagation.TraceContext{}, true
		return e, nil
	}
	var failures [3]error
	failures[0] = e.readPropagators()
	failures[1] = e.readExporters()
	if slices.Contains(e.exporters, exporterOTLP) {
		failures[2] = e.readProtocol()
	}
	e.queue = defaultSpanQueue
	if n, err := strconv.Atoi(os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE")); err == nil && n > 0 {
		e.queue = n // the SDK warns about invalid numbers
	}
	return e, errors.Join(failures[:]...)
}

// readExporters deviates from the standard in one point: without any variable nothing is
// exported, instead of retrying a local collector indefinitely.
func (e *environment) readExporters() error {
	names := variable("OTEL_TRACES_EXPORTER")
	if names == "" && slices.ContainsFunc(endpointVariables, func(name string) bool { return variable(name) != "" }) {
		names = exporterOTLP
	}
	for _, name := range list(names) {
		switch name {
		case exporterOTLP, exporterConsole:
			e.exporters = append(e.exporters, name)
		case valueNone:
		default:
			return fmt.Errorf("OTEL_TRACES_EXPORTER=%s: expected otlp, console or none", name)
		}
	}
	return nil
}

func (e *environment) readProtocol() error {
	name := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	if variable(name) == "" {
		name = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	switch e.protocol = variable(name); e.protocol {
	case "", "http/protobuf", "grpc":
		return nil
	}
	return fmt.Errorf("%s=%s: expected http/protobuf or grpc", name, e.protocol)
}

func (e *environment) readPropagators() error {
	names := variable("OTEL_PROPAGATORS")
	if names == "" {
		names = "tracecontext,baggage"
	}
	var propagators []propagation.TextMapPropagator
	for _, name := range list(names) {
		switch name {
		case "tracecontext":
			propagators, e.propagates = append(propagators, propagation.TraceContext{}), true
		case "baggage":
			propagators = append(propagators, propagation.Baggage{})
		case valueNone:
		default:
			return fmt.Errorf("OTEL_PROPAGATORS=%s: expected tracecontext, baggage or none", name)
		}
	}
	e.propagator = propagation.NewCompositeTextMapPropagator(propagators...)
	return nil
}

// variable returns the lower-case value of a variable.
func variable(name string) string { return strings.ToLower(strings.TrimSpace(os.Getenv(name))) }

func list(text string) (names []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (e *environment) newExporters(ctx context.Context, opts TracingOptions) (exporters []sdktrace.SpanExporter, err error) {
	for _, name := range e.exporters {
		var exporter sdktrace.SpanExporter
		switch {
		case name == exporterConsole:
			exporter, err = stdouttrace.New(stdouttrace.WithWriter(opts.Console))
		case e.protocol == "grpc":
			exporter, err = otlptracegrpc.New(ctx)
		default:
			exporter, err = otlptracehttp.New(ctx)
		}
		if err != nil {
			for _, made := range exporters {
				err = errors.Join(err, made.Shutdown(ctx))
			}
			return nil, fmt.Errorf("create span exporter %s: %w", name, err)
		}
		exporters = append(exporters, exporter)
	}
	return exporters, nil
}
