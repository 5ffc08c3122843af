package transport

import (
	"context"
	"log/slog"
	"time"

	"github.com/yourorg/userservice/service/throttle"
)

// linesPerSecond limits the log of net/http, which has one line per broken connection and could be
// flooded.
const linesPerSecond = 5

// limitedHandler limits the rate of log lines. Each line has the number of lines skipped before it.
type limitedHandler struct {
	slog.Handler

	lines *throttle.Throttle
}

func newLimitedHandler(to slog.Handler) *limitedHandler {
	return &limitedHandler{Handler: to, lines: throttle.New(time.Second, linesPerSecond)}
}

// Handle logs the line unless the rate is exceeded.
func (l *limitedHandler) Handle(ctx context.Context, line slog.Record) error {
	skipped, ok := l.lines.Allow("", line.Time)
	if !ok {
		return nil
	}
	if skipped > 0 {
		line.AddAttrs(slog.Int64("skipped", skipped))
	}
	return l.Handler.Handle(ctx, line)
}
