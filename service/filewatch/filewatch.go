// Package filewatch keeps the parsed content of files up to date.
package filewatch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/throttle"
)

const (
	defaultRefresh = 5 * time.Second
	// failureInterval is the minimum interval between reports of failures.
	failureInterval = time.Minute
	maxFileBytes    = 1 << 20
)

// Options configure Files. All but Refresh are required.
type Options[T any] struct {
	// Paths are regular files of at most 1 MiB.
	Paths []string
	// Parse returns the value of the contents. It is called when a content has changed.
	Parse func(contents [][]byte) (T, error)
	// Refresh is the interval of checks. 0: 5 s.
	Refresh time.Duration
	// Changed is called by Run for a new value.
	Changed func(context.Context)
	// Failed is called by Run if the files cannot be read or parsed, at most once a minute until they
	// can be again. readAt is the time of the last successful check.
	Failed func(ctx context.Context, err error, readAt time.Time)
}

// Files is the value of files. A failed check keeps the previous value. It is safe for
// concurrent use.
type Files[T any] struct {
	opts   Options[T]
	digest [sha256.Size]byte // of the current value; used by Load and Run only

	mu     sync.Mutex
	value  T
	readAt time.Time
}

// Load reads the files for the first time.
func Load[T any](opts Options[T]) (*Files[T], error) {
	if opts.Refresh == 0 {
		opts.Refresh = defaultRefresh
	}
	f := &Files[T]{opts: opts}
	_, err := f.check()
	return f, err
}

// Get returns the current value, and the time of the last successful check.
func (f *Files[T]) Get() (value T, readAt time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.value, f.readAt
}

// Run checks the files periodically until ctx is done.
func (f *Files[T]) Run(ctx context.Context) {
	failures := throttle.New(failureInterval, 1)
	ticker := time.NewTicker(f.opts.Refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := f.check()
		if err != nil {
			if _, ok := failures.Allow("", time.Now()); ok {
				_, readAt := f.Get()
				f.opts.Failed(ctx, err, readAt)
			}
			continue
		}
		failures = throttle.New(failureInterval, 1) // a failure after a success is reported at once
		if changed {
			f.opts.Changed(ctx)
		}
	}
}

func (f *Files[T]) check() (changed bool, err error) {
	contents := make([][]byte, len(f.opts.Paths))
	for i, path := range f.opts.Paths {
		if contents[i], err = Read(path); err != nil {
			return false, err
		}
	}
	digest := sha256.Sum256(bytes.Join(contents, []byte{0}))
	value, readAt := f.Get()
	if changed = readAt.IsZero() || digest != f.digest; changed {
		if value, err = f.opts.Parse(contents); err != nil {
			return false, fmt.Errorf("%s: %w", strings.Join(f.opts.Paths, " with "), err)
		}
		f.digest = digest
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.value, f.readAt = value, time.Now()
	return changed, nil
}

// Read returns the content of a regular file of at most 1 MiB. A pipe could block, and would be
// empty on the next read.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path) //nolint:gosec // the path is configured
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // read only
	return ReadAll(file)
}

// ReadAll reads at most 1 MiB.
func ReadAll(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err == nil && len(body) > maxFileBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxFileBytes)
	}
	return body, err
}
