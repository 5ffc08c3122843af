// Package telemetry sets up what the service tells of itself. At present that is its
// log: one line an event, as text for people or as JSON for programs.
//
// It decides on form alone. What is told, and at which level, is decided where it
// happens; every package is handed its logger.
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
