package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/throttle"
)

// failureLogInterval is the minimum interval between logs of the same failure.
const failureLogInterval = time.Minute

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
	opts   FileOptions
	source source
	parse  func([]byte) (T, error)
	lines  *throttle.Throttle // of failures

	mu     sync.Mutex
	value  T
	digest [sha256.Size]byte
	readAt time.Time // time of the last successful read
}

// watchFile reads the file for the first time.
func watchFile[T any](ctx context.Context, opts FileOptions, parse func([]byte) (T, error)) (*watchedFile[T], error) {
	setDefault(&opts.Refresh, 5*time.Second)
	setDefault(&opts.MaxStale, time.Hour)
	w := &watchedFile[T]{opts: opts, source: fileSource(opts.Path), parse: parse, lines: throttle.New(failureLogInterval, 1)}
	_, err := w.read(ctx)
	return w, err
}

// Run reloads the file when it changes, until ctx is done.
func (w *watchedFile[T]) Run(ctx context.Context) {
	ticker := time.NewTicker(w.opts.Refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := w.read(ctx); {
		case err != nil:
			w.logFailure(ctx, err)
		case changed:
			w.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "authentication file reloaded", slog.String("path", w.opts.Path))
		}
	}
}

func (w *watchedFile[T]) read(ctx context.Context) (changed bool, err error) {
	body, err := w.source(ctx)
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(body)
	w.mu.Lock()
	known := !w.readAt.IsZero() && w.digest == digest
	if known {
		w.readAt = time.Now()
	}
	w.mu.Unlock()
	if known {
		return false, nil
	}
	value, err := w.parse(body)
	if err != nil {
		return false, fmt.Errorf("%s: %w", w.opts.Path, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value, w.digest, w.readAt = value, digest, time.Now()
	return true, nil
}

// logFailure logs a failed reload, at most once each failureLogInterval.
func (w *watchedFile[T]) logFailure(ctx context.Context, err error) {
	now := time.Now()
	if _, ok := w.lines.Allow("", now); !ok {
		return
	}
	w.mu.Lock()
	left := w.opts.MaxStale - now.Sub(w.readAt)
	w.mu.Unlock()
	switch {
	case left > 0:
		w.opts.Logger.LogAttrs(ctx, slog.LevelError, "authentication file reload failed, previous content in use",
			slog.Any("error", err), slog.Duration("expires_in", left.Round(time.Second)))
	default:
		w.opts.Logger.LogAttrs(ctx, slog.LevelError, "authentication file unreadable for too long, callers rejected",
			slog.Any("error", err))
	}
}

func (w *watchedFile[T]) get() (value T, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, time.Since(w.readAt) <= w.opts.MaxStale
}

// Err returns an error if the content is too old.
func (w *watchedFile[T]) Err() error {
	if _, ok := w.get(); !ok {
		return fmt.Errorf("%s has been unreadable for too long", w.opts.Path)
	}
	return nil
}
