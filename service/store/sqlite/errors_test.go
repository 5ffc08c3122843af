package sqlite

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/user"
)

// Errors of SQLite become errors for callers, and say whether the whole store is concerned and whether a commit is certainly not
// stored.
func TestErrorsOfSQLite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.db")
	open := func(path string) (*conn, error) {
		c, err := connect(t.Context(), address(path, url.Values{"_pragma": {"busy_timeout(0)"}}))
		if err == nil {
			t.Cleanup(func() { _ = c.close() })
		}
		return c, err
	}
	first, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, value BLOB)", "INSERT INTO t VALUES (1, 'a', NULL)", "BEGIN IMMEDIATE"} {
		if err := first.run(statement); err != nil {
			t.Fatal(err)
		}
	}
	run := func(path string, statements ...string) error {
		c, err := open(path)
		for _, statement := range statements {
			if err == nil {
				err = c.run(statement)
			}
		}
		return err
	}
	text := filepath.Join(t.TempDir(), "text.db")
	if err := os.WriteFile(text, []byte("not a database, but long enough for a header"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		err                              error
		reason                           user.Reason // "": unexpected
		sameID, taken, store, notWritten bool
	}{
		"locked":        {run(path, "BEGIN IMMEDIATE"), user.StoreUnavailable, false, false, true, true},
		"full":          {run(filepath.Join(t.TempDir(), "full.db"), "PRAGMA max_page_count = 2", "CREATE TABLE a (b)", "CREATE TABLE c (d)"), user.StoreFull, false, false, true, true},
		"no folder":     {run(filepath.Join(text+".d", "users.db"), "BEGIN IMMEDIATE"), user.StoreUnavailable, false, false, true, false},
		"no database":   {run(text, "SELECT 1 FROM t"), "", false, false, true, false},
		"same ID":       {first.run("INSERT INTO t VALUES (1, 'b', NULL)"), "", true, false, false, false},
		"taken":         {first.run("INSERT INTO t VALUES (2, 'a', NULL)"), "", false, true, false, false},
		"no statement":  {first.run("SELEC"), "", false, false, false, false},
		"unreadable":    {unreadableError{errors.New("input/output error")}, user.StoreUnavailable, false, false, false, false},
		"not of SQLite": {context.Canceled, "", false, false, false, false},
	} {
		if test.err == nil {
			t.Errorf("%s: no error", name)
		}
		got := translateForCaller(test.err)
		if _, expected := user.AsError(got); expected != (test.reason != "") || expected && !user.HasReason(got, test.reason) {
			t.Errorf("%s: translateForCaller(%v) = %v, want reason %q", name, test.err, got, test.reason)
		}
		if got := isSameID(test.err); got != test.sameID {
			t.Errorf("%s: isSameID(%v) = %t", name, test.err, got)
		}
		if got := isTaken(test.err); got != test.taken {
			t.Errorf("%s: isTaken(%v) = %t", name, test.err, got)
		}
		if got := isStoreError(test.err); got != test.store {
			t.Errorf("%s: isStoreError(%v) = %t", name, test.err, got)
		}
		if got := notCommitted(test.err); got != test.notWritten {
			t.Errorf("%s: notCommitted(%v) = %t", name, test.err, got)
		}
		if got := unknownDiskState(test.err); got == test.notWritten {
			t.Errorf("%s: unknownDiskState(%v) = %t", name, test.err, got)
		}
	}
	if unknownDiskState(nil) {
		t.Error("unknownDiskState(nil) = true, want false")
	}
}

// An error of a read that reports damage starts a check.
func TestReadErrorStartsCheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err  error
		want int
	}{
		"damage": {disorderError{"users"}, 1}, "expected": {user.NewNotFoundError(1), 0}, "canceled": {context.Canceled, 0},
	} {
		checks := 0
		p := &pool{
			disk: disk{path: filepath.Join(t.TempDir(), "users.db")}, log: slog.New(slog.DiscardHandler), lines: throttle.New(time.Minute, 1),
			onDamage: func(error) { checks++ },
		}
		if got := p.callerError(test.err); !errors.Is(got, test.err) || checks != test.want {
			t.Errorf("%s: callerError(%v) = %v and starts %d checks, want %d", name, test.err, got, checks, test.want)
		}
	}
}
