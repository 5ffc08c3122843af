package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

// StorePath returns the path of an address sqlite:PATH.
func StorePath(address string) (string, error) {
	switch kind, path, _ := strings.Cut(address, ":"); kind {
	case "sqlite":
		if problem := invalidPath(path); problem != "" {
			return "", fmt.Errorf("--store=%q: %s: expected sqlite:PATH", address, problem)
		}
		return path, nil
	case "postgres", "postgresql":
		return "", errors.New("--store: PostgreSQL is not supported by this build: expected sqlite:PATH")
	}
	return "", fmt.Errorf("--store=%s: expected sqlite:PATH", address)
}

// invalidPath returns why a path is invalid, or "".
func invalidPath(path string) string {
	switch {
	case path == "":
		return "path is empty"
	case strings.HasPrefix(path, ":"):
		return "in-memory databases are not supported"
	case strings.HasPrefix(path, "file:"):
		return "path is a URI"
	case strings.ContainsFunc(path, unicode.IsControl):
		return "path has a control character"
	case strings.TrimSpace(path) != path:
		return "path begins or ends with a space"
	}
	return ""
}

// Storage has the properties of a store beyond user.Store. Fields may be nil.
type Storage struct {
	System   string       // db.system.name in traces
	ReadOnly func() bool  // reports whether the store is read-only until it is opened again
	Bytes    func() int64 // size of the database
	LogBytes func() int64 // size of its write-ahead log
	// WriteFailures receives when writes begin to fail. It is never closed.
	WriteFailures <-chan struct{}
	// Integrity returns why the store must not be reported ready.
	Integrity func() error
	// Clock returns the status of the system clock.
	Clock func() clock.Status
}

// OpenStore opens the store at the address and observes its commits in metrics. With trustClock the
// system clock is trusted from the start. indexing is called while the index of an older store is built; see
// sqlite.Options.
func OpenStore(ctx context.Context, address string, trustClock bool, indexing func(done, total int), log *slog.Logger, metrics *telemetry.Metrics) (user.Store, Storage, error) {
	path, err := StorePath(address)
	if err != nil {
		return nil, Storage{}, err
	}
	writeFailures := make(chan struct{}, 1)
	store, err := sqlite.Open(ctx, sqlite.Options{
		Path: path, Logger: log, TrustClock: trustClock, OnIndexing: indexing,
		OnCommit: func(c sqlite.CommitStats) { metrics.ObserveCommit(c.Changes, c.Sync) },
		OnWriteFailure: func() {
			select {
			case writeFailures <- struct{}{}:
			default: // a probe is due already
			}
		},
	})
	if err != nil {
		return nil, Storage{}, err
	}
	return withFault(store), Storage{
		System:        "sqlite",
		ReadOnly:      func() bool { return store.ReadOnly() != nil },
		Bytes:         telemetry.FileSize(path),
		LogBytes:      telemetry.FileSize(path + "-wal"),
		WriteFailures: writeFailures,
		Integrity:     store.Integrity,
		Clock:         store.Clock,
	}, nil
}
