package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func openTest(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func createUser(t testing.TB, s *Store, name string) *user.User {
	t.Helper()
	op, err := user.NewCreate(user.User{Username: name, Email: strings.ReplaceAll(name, " ", ".") + "@example.org", Tags: []string{"tag"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := user.ApplyOne(t.Context(), s, user.Change{Op: op})
	if err != nil {
		t.Fatal(err)
	}
	return r.User
}

func TestBackupDuringWrites(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, filepath.Join(dir, "users.db"))
	for i := range 300 {
		createUser(t, s, fmt.Sprintf("user%d", i))
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				createUser(t, s, fmt.Sprintf("later%d", i))
			}
		}
	}()
	path := filepath.Join(dir, "a copy?.db")
	var last [2]int
	err := s.Backup(t.Context(), path, func(done, total int) { last = [2]int{done, total} })
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if last[0] == 0 || last[0] != last[1] {
		t.Errorf("last progress = %v, want done = total", last)
	}
	if err := s.Backup(t.Context(), path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("second Backup to the same file: error = %v, want os.ErrExist", err)
	}
	copied := openTest(t, path)
	if copied.epoch == s.epoch || copied.epoch == "" {
		t.Errorf("epoch of the copy = %q, want a new one instead of %q", copied.epoch, s.epoch)
	}
	findings, err := copied.Check(t.Context(), nil)
	if err != nil || len(findings) > 0 {
		t.Errorf("Check = %v, %v, want no findings", findings, err)
	}
	if head := *copied.head.Load(); head.Position < 300 || head.Position > s.head.Load().Position {
		t.Errorf("head of the copy = %+v", head)
	}
	createUser(t, copied, "only in the copy")
	epoch := copied.epoch
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openTest(t, path); again.epoch != epoch {
		t.Errorf("epoch after the second Open = %q, want %q", again.epoch, epoch)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "partial") {
			t.Errorf("file left: %s", e.Name())
		}
	}
}

func TestCanceledBackupLeavesNoFile(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	createUser(t, s, "anna")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if err := s.Backup(ctx, filepath.Join(dir, "copy.db"), nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Fatalf("files left: %v, %v", entries, err)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	for name, damage := range map[string]string{
		"gap":                  "DELETE FROM log WHERE position = 2",
		"earlier time":         "UPDATE log SET time = time - 1000000 WHERE position = 2",
		"head position is 7":   "UPDATE meta SET position = 7",
		"details cannot":       "UPDATE log SET details = x'4D05' WHERE position = 2",
		"tags or metadata":     "UPDATE users SET tags = x'00'",
		"normal forms":         "UPDATE users SET username_key = 'x' WHERE username = 'anna'",
		"did not":              "UPDATE users SET status_position = 2 WHERE username = 'anna'",
		"version 0":            "UPDATE users SET version = 0 WHERE username = 'anna'",
		"does not match purge": "UPDATE users SET deleted_at = 1 WHERE username = 'anna'",
		"last row is 2":        "DELETE FROM log WHERE position = 3",
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
			for _, name := range []string{"anna", "berta", "carla"} {
				createUser(t, s, name)
			}
			checked := 0
			findings, err := s.Check(t.Context(), func(done, _ int) { checked = done })
			if err != nil || len(findings) > 0 || checked != 6 {
				t.Fatalf("Check before the damage = %v, %v, %d rows; want no findings, 6 rows", findings, err, checked)
			}
			if err := s.queue.Do(t.Context(), func(w *writer) error { return w.conn.run(damage) }); err != nil {
				t.Fatal(err)
			}
			findings, err = s.Check(t.Context(), nil)
			if err != nil || !strings.Contains(strings.Join(findings, "\n"), name) {
				t.Fatalf("Check = %q, %v, want %q", findings, err, name)
			}
		})
	}
}

func TestOpenInvalidFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := filepath.Join(dir, "foreign.db")
	c, err := connect(t.Context(), dsn(foreign, 1000))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.run("CREATE TABLE other (x)"), c.close()); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	s := openTest(t, newer)
	err = s.queue.Do(t.Context(), func(w *writer) error {
		return w.conn.run("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "no_file.db")
	if err := os.Mkdir(missing+"-wal", 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		missing: "not a regular file",
		write("text.db", "this is a text, and a longer one"):                 "not a SQLite database",
		write("short.db", "short"):                                           "not a SQLite database",
		write("broken.db", "SQLite format 3\x00"+strings.Repeat("x", 20000)): "not a SQLite database",
		dir:     "directory",
		foreign: "another program",
		newer:   "newer",
		filepath.Join(dir, "missing", "users.db"): "does not exist",
	} {
		s, err := Open(t.Context(), Options{Path: path})
		if err == nil {
			t.Errorf("Open(%s) succeeded, want %q", path, want)
			_ = s.Close()
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v, want %q", path, err, want)
		}
	}
}

func TestOpenLockedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	_, err := Open(t.Context(), Options{Path: path})
	if err == nil || !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), path) {
		t.Fatalf("second Open = %v, want locked by another process", err)
	}
	createUser(t, s, "berta")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openTest(t, path)
}

func TestFullDisk(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	limit := func(pages int) {
		err := s.queue.Do(t.Context(), func(w *writer) error {
			return w.conn.rows(fmt.Sprint("PRAGMA max_page_count = ", pages), func([]driver.Value) error { return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // SQLite raises it to the current size
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		op, failure := user.NewCreate(user.User{Username: fmt.Sprint("user", i), Email: fmt.Sprint(i, "@example.org"), Metadata: map[string]string{"k": strings.Repeat("x", 1000)}})
		if failure != nil {
			t.Fatal(failure)
		}
		_, err = user.ApplyOne(t.Context(), s, user.Change{Op: op})
	}
	if !user.HasReason(err, user.StoreFull) {
		t.Fatalf("error = %v, want STORE_FULL", err)
	}
	if _, err := s.Get(t.Context(), u.ID); err != nil || s.ReadOnly() != nil {
		t.Fatalf("Get error = %v, ReadOnly = %v, want nil", err, s.ReadOnly())
	}
	limit(1 << 30)
	createUser(t, s, "berta")
	if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
		t.Fatalf("Check = %v, %v, want no findings", findings, err)
	}
}

func TestFailedSyncStopsWrites(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit, notified := s.writer.commit, false
	err = s.queue.Do(t.Context(), func(w *writer) error {
		w.store.opts.OnWriteFailure = func() { notified = true }
		w.commit = func() error { return errors.New("injected sync failure") }
		return nil
	})
	for range 2 {
		if !user.HasReason(err, user.StoreReadOnly) || s.ReadOnly() == nil || !notified {
			t.Fatalf("error = %v, ReadOnly = %v, OnWriteFailure called: %v", err, s.ReadOnly(), notified)
		}
		_, err = user.ApplyOne(t.Context(), s, user.Change{Op: &user.Delete{ID: u.ID}})
		// Writes remain stopped even if commits would succeed again.
		s.writer.commit = commit
	}
	if err := s.Probe(t.Context()); !user.HasReason(err, user.StoreReadOnly) {
		t.Fatalf("Probe error = %v, want STORE_READ_ONLY", err)
	}
	if got, err := s.Get(t.Context(), u.ID); err != nil || got.Deleted() {
		t.Fatalf("Get = %v, %v, want the user unchanged", got, err)
	}
	if now, err := s.Head(t.Context()); err != nil || now != head {
		t.Fatalf("Head = %v, %v, want %v", now, err, head)
	}
	if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
		t.Fatalf("Check = %v, %v, want no findings", findings, err)
	}
}

func TestOlderVersion(t *testing.T) {
	for version, older := range map[string]bool{
		"3.51.2": true, "3.51.3": false, "3.51.10": false, "3.6.0": true, "4.0": false, "3.52": false, "3.51": true, "x": true,
	} {
		if got := olderVersion(version, minSQLite); got != older {
			t.Errorf("olderVersion(%q, %q) = %v, want %v", version, minSQLite, got, older)
		}
	}
}
