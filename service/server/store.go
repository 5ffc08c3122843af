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

// StorePath returns the path within an address of the form sqlite:PATH.
func StorePath(address string) (string, error) {
	switch kind, path, _ := strings.Cut(address, ":"); kind {
	case "sqlite":
		if why := notAFile(path); why != "" {
			return "", fmt.Errorf("--store=%q: %s: expected sqlite:PATH with the path of a file", address, why)
		}
		return path, nil
	case "postgres", "postgresql":
		return "", errors.New("--store: PostgreSQL is not supported by this build: expected sqlite:PATH")
	}
	return "", fmt.Errorf("--store=%s: expected sqlite:PATH", address)
}

// notAFile says why a path cannot name the file of a store; empty: it can.
func notAFile(path string) string {
	switch {
	case path == "":
		return "names no file"
	case strings.HasPrefix(path, ":"):
		return "a store in memory would lose what it has acknowledged"
	case strings.HasPrefix(path, "file:"):
		return "a URI is not a path"
	case strings.ContainsFunc(path, unicode.IsControl):
		return "has a control character"
	case strings.TrimSpace(path) != path:
		return "begins or ends with a space"
	}
	return ""
}

// Storage says of a store what only its own kind can tell. What is nil is not known.
type Storage struct {
	System   string       // the kind, as traces name it
	ReadOnly func() bool  // it takes no more writes until it is opened again
	Bytes    func() int64 // size of the database
	LogBytes func() int64 // size of its write-ahead log
	// Trouble tells that writes have begun to fail; it is never closed.
	Trouble <-chan struct{}
	// Integrity returns why the store must not be reported ready.
	Integrity func() error
	// Clock returns what the store thinks of the system clock.
	Clock func() clock.Status
}

// OpenStore opens the store at the address. Commits are counted in the metrics.
// trustClock takes the system clock as right from the start.
func OpenStore(ctx context.Context, address string, trustClock bool, log *slog.Logger, metrics *telemetry.Metrics) (user.Store, Storage, error) {
	path, err := StorePath(address)
	if err != nil {
		return nil, Storage{}, err
	}
	trouble := make(chan struct{}, 1)
	store, err := sqlite.Open(ctx, sqlite.Options{
		Path: path, Logger: log, TrustClock: trustClock,
		OnCommit: func(c sqlite.CommitStats) { metrics.ObserveCommit(c.Changes, c.Sync) },
		OnWriteFailure: func() {
			select {
			case trouble <- struct{}{}:
			default: // the one before has yet to be looked into, and will find this as well
			}
		},
	})
	if err != nil {
		return nil, Storage{}, err
	}
	return store, Storage{
		System:   "sqlite",
		ReadOnly: func() bool { return store.ReadOnly() != nil },
		Bytes:    telemetry.FileSize(path),
		LogBytes: telemetry.FileSize(path + "-wal"),
		Trouble:  trouble,

		Integrity: store.Integrity,
		Clock:     store.Clock,
	}, nil
}
