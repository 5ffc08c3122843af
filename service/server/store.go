package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/postgres"
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
		return "", errors.New("--store: this command is for SQLite; use the tools of PostgreSQL, such as pg_dump: expected sqlite:PATH")
	}
	return "", fmt.Errorf("--store=%s: expected sqlite:PATH or postgres://…", address)
}

// ValidateStore returns an error for an invalid address of a store: neither sqlite:PATH nor postgres://…. It does not
// contain a password.
func ValidateStore(address string) error {
	if IsPostgres(address) {
		if err := postgres.CheckURL(address); err != nil {
			return fmt.Errorf("--store: %w", err)
		}
		return nil
	}
	_, err := StorePath(address)
	return err
}

// ValidateReplica returns an error for an invalid URL of a replica. Empty is valid: there is none.
func ValidateReplica(address string) error {
	if address == "" {
		return nil
	}
	if !IsPostgres(address) {
		return errors.New("--store-replica: expected postgres://…")
	}
	if err := postgres.CheckURL(address); err != nil {
		return fmt.Errorf("--store-replica: %w", err)
	}
	return nil
}

// IsPostgres reports whether the address of a store is that of a PostgreSQL database.
func IsPostgres(address string) bool {
	kind, _, _ := strings.Cut(address, "://")
	return kind == "postgres" || kind == "postgresql"
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

// StoreOptions configures OpenStore.
type StoreOptions struct {
	Address    string // sqlite:PATH or postgres://…
	Replica    string // postgres://… of a streaming replica, which is read while it has reached the head; empty: none
	TrustClock bool   // trust the system clock from the start
	// Indexing is called while the index of an older store is built; see sqlite.Options.
	Indexing func(done, total int)
	Logger   *slog.Logger
	Metrics  *telemetry.Metrics // observes reads and commits
}

func (o *StoreOptions) validate() error {
	if err := ValidateStore(o.Address); err != nil {
		return err
	}
	if o.Replica != "" && !IsPostgres(o.Address) {
		return errors.New("--store-replica: expected with --store=postgres://…")
	}
	return ValidateReplica(o.Replica)
}

// OpenStore opens a store.
func OpenStore(ctx context.Context, opts StoreOptions) (user.Store, Storage, error) {
	if err := opts.validate(); err != nil {
		return nil, Storage{}, err
	}
	log, metrics := opts.Logger, opts.Metrics
	failing, onFailure := writeFailures()
	if IsPostgres(opts.Address) {
		return openPostgres(ctx, postgres.Options{
			URL: opts.Address, ReplicaURL: opts.Replica, Logger: log, TrustClock: opts.TrustClock, OnWriteFailure: onFailure,
			OnCommit: func(c postgres.CommitStats) { metrics.ObserveCommit(c.Changes, c.Sync) }, OnRead: metrics.StoreRead,
		}, failing)
	}
	path, err := StorePath(opts.Address)
	if err != nil {
		return nil, Storage{}, err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{
		Path: path, Logger: log, TrustClock: opts.TrustClock, OnIndexing: opts.Indexing, OnWriteFailure: onFailure,
		OnCommit: func(c sqlite.CommitStats) { metrics.ObserveCommit(c.Changes, c.Sync) },
	})
	if err != nil {
		return nil, Storage{}, err
	}
	return withFault(store), Storage{
		System:        "sqlite",
		ReadOnly:      func() bool { return store.ReadOnly() != nil },
		Bytes:         telemetry.FileSize(path),
		LogBytes:      telemetry.FileSize(path + "-wal"),
		WriteFailures: failing,
		Integrity:     store.Integrity,
		Clock:         store.Clock,
	}, nil
}

// writeFailures returns a channel that receives when notify was called.
func writeFailures() (failing <-chan struct{}, notify func()) {
	failures := make(chan struct{}, 1)
	return failures, func() {
		select {
		case failures <- struct{}{}:
		default: // a probe is due already
		}
	}
}

func openPostgres(ctx context.Context, opts postgres.Options, writeFailures <-chan struct{}) (user.Store, Storage, error) {
	store, err := postgres.Open(ctx, opts)
	if err != nil {
		return nil, Storage{}, err
	}
	return withFault(store), Storage{System: "postgresql", Bytes: store.Bytes, WriteFailures: writeFailures, Clock: store.Clock}, nil
}
