package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"regexp"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
)

// SDKLog returns what the SDK of OpenTelemetry is to be given to log as the service
// does, by otel.SetErrorHandler and otel.SetLogger. These are settings of the whole
// process, and so the program's: without them the SDK writes lines of a form of its
// own to standard error.
//
// What the SDK could not make sense of it repeats, and that may be a header with a
// credential or an address with a password. So no text comes through that it was
// given; its own words and what is wrong with them do.
func SDKLog(log *slog.Logger) (otel.ErrorHandler, logr.Logger) {
	handler := sdkHandler{log.Handler()}
	failed := otel.ErrorHandlerFunc(func(err error) {
		log.LogAttrs(context.Background(), slog.LevelWarn, "OpenTelemetry", slog.Any("error", withoutValues(err)))
	})
	return failed, logr.FromSlogHandler(handler)
}

// sdkHandler makes records of the SDK fit for the log.
type sdkHandler struct{ next slog.Handler }

// sdkLevel gives what the SDK's level means here. Nothing that goes wrong with traces
// is a failure of the service. The SDK warns at a verbosity of one, which arrives just
// below info.
func sdkLevel(level slog.Level) slog.Level {
	if level >= slog.LevelInfo-1 {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled reports whether the next handler takes what the level means.
func (h sdkHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, sdkLevel(level))
}

// Handle hands a record on without what the SDK was given.
func (h sdkHandler) Handle(ctx context.Context, r slog.Record) error {
	fit := slog.NewRecord(r.Time, sdkLevel(r.Level), "OpenTelemetry: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		fit.AddAttrs(sdkAttr(a))
		return true
	})
	return h.next.Handle(ctx, fit)
}

// WithAttrs keeps attributes without what the SDK was given.
func (h sdkHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	fit := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		fit[i] = sdkAttr(a)
	}
	return sdkHandler{h.next.WithAttrs(fit)}
}

// WithGroup opens a group.
func (h sdkHandler) WithGroup(name string) slog.Handler { return sdkHandler{h.next.WithGroup(name)} }

func sdkAttr(a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindInt64, slog.KindUint64, slog.KindTime:
		return a
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			return slog.Any("error", withoutValues(err))
		}
	default:
	}
	return slog.String(a.Key, redacted)
}

// given finds in the text of an error what it may repeat of a value: errors put that
// into quotes or brackets.
var given = regexp.MustCompile(`"[^"]*"|'[^']*'|\[[^]]*\]`)

// withoutValues returns the error without what it repeats.
func withoutValues(err error) error {
	return errors.New(given.ReplaceAllString(err.Error(), redacted))
}
