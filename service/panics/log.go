package panics

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
)

// Log logs a panic with a new incident id.
func Log(ctx context.Context, log *slog.Logger, message string, p *Error, attrs ...slog.Attr) (incident string) {
	incident = rand.Text()
	log.LogAttrs(ctx, slog.LevelError, message, append(attrs, slog.String("incident", incident),
		slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))...)
	return incident
}

// Task returns do with panics logged and converted to errors.
func Task(log *slog.Logger, task string, do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := Catch(func() error { return do(ctx) })
		if p := (*Error)(nil); errors.As(err, &p) {
			return fmt.Errorf("panic, incident %s", Log(ctx, log, "panic in background task", p, slog.String("task", task)))
		}
		return err
	}
}
