package auth

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/yourorg/userservice/service/filewatch"
)

// FileOptions configure a file with authentication data.
type FileOptions struct {
	// Path of the file, at most 1 MiB. Required.
	Path string
	// Refresh is the interval at which the file is checked. Default: 5 s.
	Refresh time.Duration
	// MaxStale is how long the content stays valid while the file is unreadable. Default: 1 h.
	MaxStale time.Duration
	Logger   *slog.Logger // required
}

// watchedFile is the parsed content of a file, reloaded when it changes. If a reload fails,
// the previous content stays valid for MaxStale. That bound limits how long a revoked caller
// keeps access when the file cannot be read. It is safe for concurrent use.
type watchedFile[T any] struct {
	*filewatch.Files[T]

	opts FileOptions
}

// watchFile reads the file for the first time.
func watchFile[T any](opts FileOptions, parse func([]byte) (T, error)) (*watchedFile[T], error) {
	setDefault(&opts.MaxStale, time.Hour)
	w := &watchedFile[T]{opts: opts}
	var err error
	w.Files, err = filewatch.Load(filewatch.Options[T]{
		Paths: []string{opts.Path}, Refresh: opts.Refresh, Failed: w.logFailure,
		Parse: func(contents [][]byte) (T, error) { return parse(contents[0]) },
		Changed: func(ctx context.Context) {
			opts.Logger.LogAttrs(ctx, slog.LevelInfo, "authentication file reloaded", slog.String("path", opts.Path))
		},
	})
	return w, err
}

func (w *watchedFile[T]) logFailure(ctx context.Context, err error, readAt time.Time) {
	if left := w.opts.MaxStale - time.Since(readAt); left > 0 {
		w.opts.Logger.LogAttrs(ctx, slog.LevelError, "authentication file reload failed, previous content in use",
			slog.Any("error", err), slog.Duration("expires_in", left.Round(time.Second)))
		return
	}
	w.opts.Logger.LogAttrs(ctx, slog.LevelError, "authentication file unreadable for too long, callers rejected",
		slog.Any("error", err))
}

func (w *watchedFile[T]) get() (value T, ok bool) {
	value, readAt := w.Get()
	return value, time.Since(readAt) <= w.opts.MaxStale
}

// Err returns an error if the content is too old.
func (w *watchedFile[T]) Err() error {
	if _, ok := w.get(); !ok {
		return fmt.Errorf("%s has been unreadable for too long", w.opts.Path)
	}
	return nil
}
