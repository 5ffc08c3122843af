// Package telemetry provides the logger, the metrics registry and the tracing of the service,
// and contains the dashboard and the alerts.
//
// A caller cannot forge a log line, create a metric series or force a trace to be sampled. The
// package sets no process-wide defaults; other packages receive their logger as a parameter.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// Log formats.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// NewLogger returns a logger that writes to w at the given level (debug, info, warn or error)
// and above. An empty format selects FormatText for a terminal, else FormatJSON.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var opts slog.HandlerOptions
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: expected debug, info, warn or error", level)
	}
	opts.Level = from
	if format == "" {
		format = FormatJSON
		if IsTerminal(w) {
			format = FormatText
		}
	}
	switch format {
	case FormatText:
		return slog.New(slog.NewTextHandler(w, &opts)), nil
	case FormatJSON:
		opts.ReplaceAttr = durationsInSeconds
		return slog.New(slog.NewJSONHandler(w, &opts)), nil
	}
	return nil, fmt.Errorf("log format %q: expected %s or %s", format, FormatText, FormatJSON)
}

// durationsInSeconds replaces durations, which slog's JSON handler writes in nanoseconds.
func durationsInSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
