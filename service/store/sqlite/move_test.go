package sqlite

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/store/move"
)

// A store that a server uses is neither source nor target.
func TestMoveOfStoreInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	if _, err := OpenSource(t.Context(), path); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("OpenSource = %v, want an error that it is locked", err)
	}
	if _, err := OpenTarget(t.Context(), path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("OpenTarget = %v, want an error that it is locked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	source, err := OpenSource(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Path: path}); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("Open during a move = %v, want an error that it is locked", err)
	}
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
}

// A store with users is no target.
func TestTargetIsNotEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	target, err := OpenTarget(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := target.Begin(t.Context(), "a source"); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("Begin = %v, want an error that the store is not empty", err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	openTest(t, path)
}

// An incomplete target cannot be opened, moved, checked, backed up or restored. Only the source with the same fingerprint
// continues it.
func TestIncompleteTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	openTarget := func() *Target {
		t.Helper()
		target, err := OpenTarget(t.Context(), path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	target := openTarget()
	if _, err := target.Begin(t.Context(), "the source"); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() error{
		"Open":       func() error { _, err := Open(t.Context(), Options{Path: path}); return err },
		"OpenFile":   func() error { _, err := OpenFile(t.Context(), path); return err },
		"OpenSource": func() error { _, err := OpenSource(t.Context(), path); return err },
		"Restore":    func() error { return Restore(t.Context(), path, path+".restored", RestoreOptions{}) },
	} {
		if err := open(); !errors.Is(err, move.ErrIncomplete) {
			t.Errorf("%s of an incomplete target = %v, want %v", name, err, move.ErrIncomplete)
		}
	}
	target = openTarget()
	if _, err := target.Begin(t.Context(), "another source"); !errors.Is(err, move.ErrOtherSource) {
		t.Errorf("Begin with another source = %v, want %v", err, move.ErrOtherSource)
	}
	if state, err := target.Begin(t.Context(), "the source"); err != nil || string(state[move.SourceState]) != "the source" {
		t.Errorf("Begin with the same source = %q, %v, want its state", state, err)
	}
	failure := errors.New("fault of a test")
	if err := target.transaction(func() error { return errors.Join(target.save("lost", nil), failure) }); !errors.Is(err, failure) {
		t.Errorf("transaction(fault) = %v, want the fault", err)
	}
	if state, err := target.Begin(t.Context(), "the source"); err != nil || len(state) != 1 {
		t.Errorf("state after a failed transaction = %q, %v, want that before it", state, err)
	}
	if err := target.conn.run("DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)"); err != nil {
		t.Fatal(err)
	}
	if _, err := target.Begin(t.Context(), "the source"); !errors.Is(err, move.ErrOtherSource) {
		t.Errorf("Begin of a move by an older program = %v, want %v", err, move.ErrOtherSource)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

// The fingerprint of a source changes with each write and each open, but not by its retirement.
func TestFingerprint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	seen := make(map[string]bool)
	for range 3 {
		s := openTest(t, path)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			source, err := OpenSource(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			seen[source.Fingerprint()] = true
			if err := errors.Join(source.Retire(t.Context()), source.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d fingerprints of three states, want 3: %v", len(seen), seen)
	}
}

// A store of an older program is migrated by a start first.
func TestSourceOfOlderProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"UPDATE meta SET names = 0", "DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)"} {
		c, err := connect(t.Context(), dsn(path, readerCacheKiB))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.run(statement), c.close()); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSource(t.Context(), path); err == nil || !strings.Contains(err.Error(), "older version") {
			t.Errorf("%s: OpenSource = %v, want an error that the store is older", statement, err)
		}
	}
}
