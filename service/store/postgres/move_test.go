package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/store/postgres"
	"github.com/yourorg/userservice/service/user"
)

func openStore(t *testing.T, url string) (*postgres.Store, error) {
	t.Helper()
	return postgres.Open(t.Context(), postgres.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
}

func create(t *testing.T, s user.Store, name string) {
	t.Helper()
	op, err := user.NewCreate(user.User{Username: name, Email: strings.ReplaceAll(name, " ", ".") + "@example.org"})
	if err == nil {
		_, err = user.ApplyOne(t.Context(), s, user.Change{Op: op})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func moveOptions(url string, observe time.Duration) postgres.MoveOptions {
	return postgres.MoveOptions{URL: url, Logger: slog.New(slog.DiscardHandler), Observe: observe}
}

// While a store is moved, a node does not start, and one that runs cannot write.
func TestSourceIsLocked(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	running, err := openStore(t, url)
	if err != nil {
		t.Fatal(err)
	}
	source, err := postgres.OpenSource(t.Context(), moveOptions(url, 0)) // the node has not written yet
	if err != nil {
		t.Fatal(err)
	}
	if s, err := openStore(t, url+"&lock_timeout=100"); err == nil || !strings.Contains(err.Error(), "is being moved") {
		t.Errorf("Open during a move = %v, %v, want an error that says so", s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := running.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Probe during a move = %v, want it to wait", err)
	}
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := openStore(t, url)
	if err != nil {
		t.Fatalf("Open after an interrupted move: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
}

// A database that a node uses is neither source nor target. One whose node was killed is.
func TestMoveOfDatabaseInUse(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	running, err := openStore(t, url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	probed := make(chan error)
	started := make(chan struct{})
	go func() {
		err := running.Probe(t.Context())
		close(started)
		for ctx.Err() == nil && err == nil {
			err = running.Probe(t.Context())
		}
		probed <- err
	}()
	<-started
	for name, open := range map[string]func(postgres.MoveOptions) error{
		"source": func(o postgres.MoveOptions) error { _, err := postgres.OpenSource(t.Context(), o); return err },
		"target": func(o postgres.MoveOptions) error { _, err := postgres.OpenTarget(t.Context(), o); return err },
	} {
		if err := open(moveOptions(url, time.Second)); err == nil || !strings.Contains(err.Error(), "in use by a node") {
			t.Errorf("open as %s = %v, want an error that a node uses it", name, err)
		}
	}
	cancel()
	if err := <-probed; err != nil {
		t.Fatal(err)
	}
	source, err := postgres.OpenSource(t.Context(), moveOptions(url, time.Millisecond)) // no probes: as if it were killed
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(source.Close(), running.Close()); err != nil {
		t.Fatal(err)
	}
}

// A node that runs on an empty target cannot write from the start of the move on. Only the source with the same fingerprint
// continues an incomplete move.
func TestIncompleteTarget(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	running, err := openStore(t, url)
	if err != nil {
		t.Fatal(err)
	}
	target, err := postgres.OpenTarget(t.Context(), moveOptions(url, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := target.Begin(t.Context(), "the source"); err != nil {
		t.Fatal(err)
	}
	if err := running.Probe(t.Context()); err == nil {
		t.Error("Probe of a node succeeded during a move")
	}
	if err := errors.Join(target.Close(), running.Close()); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() error{
		"Open":       func() error { _, err := openStore(t, url); return err },
		"OpenSource": func() error { _, err := postgres.OpenSource(t.Context(), moveOptions(url, 0)); return err },
		"Check":      func() error { _, err := postgres.Check(t.Context(), url, func(int, int) {}); return err },
	} {
		if err := open(); !errors.Is(err, move.ErrIncomplete) {
			t.Errorf("%s of an incomplete target = %v, want %v", name, err, move.ErrIncomplete)
		}
	}
	if target, err = postgres.OpenTarget(t.Context(), moveOptions(url, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := target.Begin(t.Context(), "another source"); !errors.Is(err, move.ErrOtherSource) {
		t.Errorf("Begin with another source = %v, want %v", err, move.ErrOtherSource)
	}
	if state, err := target.Begin(t.Context(), "the source"); err != nil || string(state[move.SourceState]) != "the source" {
		t.Errorf("Begin with the same source = %q, %v, want its state", state, err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

// A target with users is refused.
func TestTargetIsNotEmpty(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s, err := openStore(t, url)
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "anna")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	target, err := postgres.OpenTarget(t.Context(), moveOptions(url, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := target.Begin(t.Context(), "a source"); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("Begin of a store with users = %v, want an error", err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

// Check finds each kind of damage.
func TestCheck(t *testing.T) {
	t.Parallel()
	for damage, want := range map[string]string{
		"SELECT":                                                                        "",
		"DELETE FROM log WHERE position = 3":                                            "log: gap, row 4 follows row 2",
		"DELETE FROM log WHERE position = 6":                                            "log: last row is 5, head position 6",
		"UPDATE meta SET first = 3":                                                     "log: row 1 is left although it was pruned",
		"UPDATE meta SET time = time + 1":                                               "head time differs",
		"UPDATE log SET time = 1 WHERE position = 4":                                    "log row 4: earlier time than row 3",
		"UPDATE log SET details = '\\x5a' WHERE position = 2":                           "log row 2: details cannot be decoded",
		"UPDATE users SET version = 0 WHERE username = 'user 1'":                        "invalid version 0",
		"UPDATE users SET deleted_at = 1 WHERE username = 'user 1'":                     "does not match purge_at",
		"UPDATE users SET status_position = 1 WHERE username = 'user 1'":                "log row 1 did not set its status",
		"UPDATE users SET last_activity_id = 1 WHERE username = 'user 1'":               "log row 1 is not its last change",
		"UPDATE users SET username_key = 'other' WHERE username = 'user 1'":             "stored normal forms do not match",
		"DELETE FROM terms WHERE user_id = (SELECT max(user_id) FROM users)":            "entries in the index are not those of its fields",
		"INSERT INTO terms SELECT 5, user_id FROM users LIMIT 1":                        "entries in the index are not those of its fields",
		"UPDATE terms SET user_id = 5 WHERE user_id = (SELECT min(user_id) FROM users)": "entries in the index are not those of its fields",
	} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			url := newDatabase(t)
			s, err := openStore(t, url)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"user 0", "user 1", "user 2", "user 3", "user 4", "user 5"} {
				create(t, s, name)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			_, err = conn.Exec(t.Context(), damage)
			if err := errors.Join(err, conn.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
			findings, err := postgres.Check(t.Context(), url, func(int, int) {})
			if err != nil || (len(findings) > 0) != (want != "") || !strings.Contains(strings.Join(findings, "\n"), want) {
				t.Errorf("Check() = %q, %v, want %q", findings, err, want)
			}
		})
	}
}

// The size of the database is known when the store is open.
func TestBytes(t *testing.T) {
	t.Parallel()
	s, err := openStore(t, newDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Bytes(); got < 1<<20 {
		t.Errorf("Bytes() = %d, want a few megabytes", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A database without a store is not checked.
func TestCheckWithoutStore(t *testing.T) {
	t.Parallel()
	if findings, err := postgres.Check(t.Context(), pgtest.Database(t), func(int, int) {}); err == nil || !strings.Contains(err.Error(), "no store") {
		t.Errorf("Check() = %q, %v, want an error that there is no store", findings, err)
	}
}
