package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// tellEvery is how often the log repeats that a file cannot be read.
const tellEvery = time.Minute

// FileOptions say where a file is that says who may call, and how long it counts.
type FileOptions struct {
	// Path of the file. Required. At most 1 MiB.
	Path string
	// Refresh is how often it is looked at. 0: 5 s.
	Refresh time.Duration
	// MaxStale is how long what it said counts when it cannot be read any more. 0: 1 h.
	MaxStale time.Duration
	Logger   *slog.Logger // required
}

// watched is what a file says, read again when it changes. A change that cannot be read
// leaves what it said before, for as long as MaxStale; whoever cannot take somebody out of
// the file shall not have let him in for ever. It is safe for use by many goroutines.
type watched[T any] struct {
	opts   FileOptions
	source source
	parse  func([]byte) (T, error)

	mu     sync.Mutex
	value  T
	digest [sha256.Size]byte
	readAt time.Time // when value was last seen to be what the file says
	told   time.Time // when the log was last told of a failure
}

// watch reads the file for the first time.
func watch[T any](ctx context.Context, opts FileOptions, parse func([]byte) (T, error)) (*watched[T], error) {
	orElse(&opts.Refresh, 5*time.Second)
	orElse(&opts.MaxStale, time.Hour)
	w := &watched[T]{opts: opts, source: fileSource(opts.Path), parse: parse}
	_, err := w.read(ctx)
	return w, err
}

// Run reads the file again when it changes, until the context ends.
func (w *watched[T]) Run(ctx context.Context) {
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
			w.tell(ctx, err)
		case changed:
			w.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "a file that says who may call has changed", slog.String("file", w.opts.Path))
		}
	}
}

func (w *watched[T]) read(ctx context.Context) (changed bool, err error) {
	body, err := w.source(ctx)
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(body)
	w.mu.Lock()
	known := !w.readAt.IsZero() && w.digest == digest
	if known {
		w.readAt, w.told = time.Now(), time.Time{}
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
	w.value, w.digest, w.readAt, w.told = value, digest, time.Now(), time.Time{}
	return true, nil
}

// tell logs a failure, at first and then now and again.
func (w *watched[T]) tell(ctx context.Context, err error) {
	w.mu.Lock()
	now := time.Now()
	due := w.told.IsZero() || now.Sub(w.told) >= tellEvery
	if due {
		w.told = now
	}
	left := w.opts.MaxStale - now.Sub(w.readAt)
	w.mu.Unlock()
	switch {
	case !due:
	case left > 0:
		w.opts.Logger.LogAttrs(ctx, slog.LevelError, "a file that says who may call could not be read; what it said counts a little longer",
			slog.Any("error", err), slog.Duration("left", left.Round(time.Second)))
	default:
		w.opts.Logger.LogAttrs(ctx, slog.LevelError, "a file that says who may call could not be read for too long; it lets nobody in",
			slog.Any("error", err))
	}
}

// get returns what the file says. ok is false when it could not be read for too long.
func (w *watched[T]) get() (value T, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, time.Since(w.readAt) <= w.opts.MaxStale
}

// Trouble says that the file could not be read for too long; nil: it could.
func (w *watched[T]) Trouble() error {
	if _, ok := w.get(); !ok {
		return fmt.Errorf("%s could not be read for too long", w.opts.Path)
	}
	return nil
}
