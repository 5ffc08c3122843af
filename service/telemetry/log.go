// Package telemetry sets up what the service tells of itself: its log, one line an
// event, as text for people or as JSON for programs; its metrics, in a registry of
// their own; and its traces, which go where the environment says. The dashboard and
// the alerts that go with the metrics are beside it.
//
// It decides on form, and promises that nothing a caller sends can forge a line, make a
// series or have a trace kept. What is told, and at which level, is decided where it
// happens; every package is handed its logger. It sets nothing for the whole process.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// The forms of a log.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// NewLogger returns a logger that writes to w, from the level (debug, info, warn or
// error) upwards, in the format. An empty format is FormatText where w is a
// terminal and FormatJSON elsewhere.
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

// durationsInSeconds gives durations a unit that programs expect; slog's own are in
// nanoseconds.
func durationsInSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

// IsTerminal reports whether w is a terminal, that is, whether a person reads it.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
