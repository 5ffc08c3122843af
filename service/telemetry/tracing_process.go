package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"regexp"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
)

// SDKLog returns an error handler and a logger for otel.SetErrorHandler and otel.SetLogger.
// They write the messages of the SDK to log. Only the program calls these setters, because
// they are process-wide.
//
// Values are redacted: the SDK quotes invalid input, which may be a header with a credential
// or a URL with a password.
func SDKLog(log *slog.Logger) (otel.ErrorHandler, logr.Logger) {
	handler := sdkHandler{log.Handler()}
	failed := otel.ErrorHandlerFunc(func(err error) {
		log.LogAttrs(context.Background(), slog.LevelWarn, "OpenTelemetry error", slog.Any("error", redactValues(err)))
	})
	return failed, logr.FromSlogHandler(handler)
}

type sdkHandler struct{ next slog.Handler }

// sdkLevel maps the levels of the SDK to warn and debug. The SDK warns at verbosity 1, which is
// just below info. A tracing problem is never an error of the service.
func sdkLevel(level slog.Level) slog.Level {
	if level >= slog.LevelInfo-1 {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements slog.Handler.
func (h sdkHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, sdkLevel(level))
}

// Handle redacts the values of a record.
func (h sdkHandler) Handle(ctx context.Context, r slog.Record) error {
	sanitized := slog.NewRecord(r.Time, sdkLevel(r.Level), "OpenTelemetry: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		sanitized.AddAttrs(sdkAttr(a))
		return true
	})
	return h.next.Handle(ctx, sanitized)
}

// WithAttrs redacts the values of attributes.
func (h sdkHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	sanitized := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		sanitized[i] = sdkAttr(a)
	}
	return sdkHandler{h.next.WithAttrs(sanitized)}
}

// WithGroup opens a group.
func (h sdkHandler) WithGroup(name string) slog.Handler { return sdkHandler{h.next.WithGroup(name)} }

func sdkAttr(a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindInt64, slog.KindUint64, slog.KindTime:
		return a
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			return slog.Any("error", redactValues(err))
		}
	default:
	}
	return slog.String(a.Key, redacted)
}

var quotedValues = regexp.MustCompile(`"[^"]*"|'[^']*'|\[[^]]*\]`)

// redactValues returns the error with quoted values redacted.
func redactValues(err error) error {
	return errors.New(quotedValues.ReplaceAllString(err.Error(), redacted))
}
