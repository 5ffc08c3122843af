package transport

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// linesPerSecond limits the log of net/http, which has one line per broken connection and could be
// flooded.
const linesPerSecond = 5

// limitedHandler limits the rate of log lines. Each line has the number of lines skipped before it.
type limitedHandler struct {
	slog.Handler

	rate    *Rate
	skipped atomic.Int64
}

func newLimitedHandler(to slog.Handler) *limitedHandler {
	return &limitedHandler{Handler: to, rate: NewRate(linesPerSecond, linesPerSecond)}
}

// Handle logs the line unless the rate is exceeded.
func (l *limitedHandler) Handle(ctx context.Context, line slog.Record) error {
	if _, ok := l.rate.Take(""); !ok {
		l.skipped.Add(1)
		return nil
	}
	if skipped := l.skipped.Swap(0); skipped > 0 {
		line.AddAttrs(slog.Int64("skipped", skipped))
	}
	return l.Handler.Handle(ctx, line)
}
