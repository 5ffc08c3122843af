package transport

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// linesPerSecond is how much of what net/http has to say is logged. It has a line for
// each peer that breaks off, so whoever floods the server could flood the log.
const linesPerSecond = 5

// fewLines passes on a few lines a second, and with the next one how many were left out.
type fewLines struct {
	slog.Handler

	rate    *Rate
	skipped atomic.Int64
}

func newFewLines(to slog.Handler) *fewLines {
	return &fewLines{Handler: to, rate: NewRate(linesPerSecond, linesPerSecond)}
}

// Handle logs the line if its turn has come.
func (l *fewLines) Handle(ctx context.Context, line slog.Record) error {
	if _, ok := l.rate.Take(""); !ok {
		l.skipped.Add(1)
		return nil
	}
	if skipped := l.skipped.Swap(0); skipped > 0 {
		line.AddAttrs(slog.Int64("skipped", skipped))
	}
	return l.Handler.Handle(ctx, line)
}
