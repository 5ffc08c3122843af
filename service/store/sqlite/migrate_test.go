package sqlite

import (
	"database/sql/driver"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// A store of version 1 has no status positions of deletions and undeletions.
func TestMigrationFindsTheStatusPositions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	apply := func(op user.Op) *user.User {
		result, err := user.ApplyOne(t.Context(), s, user.Change{Op: op})
		if err != nil {
			t.Fatal(err)
		}
		return result.User
	}
	var ids []int64
	for _, name := range []string{"anna", "berta", "carla", "doris"} {
		op, err := user.NewCreate(name, name+"@example.org", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, apply(op).ID)
	}
	apply(&user.SetStatus{ID: ids[3], Status: user.StatusInactive})
	for _, id := range ids[1:] {
		apply(&user.Delete{ID: id, Retention: time.Hour})
	}
	apply(&user.Undelete{ID: ids[2]})
	apply(&user.Undelete{ID: ids[3]})
	apply(&user.SetStatus{ID: ids[3], Status: user.StatusSuspended})
	want, err := s.Statuses(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeVersion1(t, path)
	s = openTest(t, path)
	got, err := s.Statuses(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("user %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

// makeVersion1 makes of a closed store what the first release would have left.
func makeVersion1(t *testing.T, path string) {
	t.Helper()
	c, err := connect(t.Context(), dsn(path, readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`UPDATE users SET status_position = (SELECT max(position) FROM log
			WHERE log.user_id = users.user_id AND action IN ('user.created', 'user.status_changed'))`,
		"ALTER TABLE meta DROP COLUMN session", "ALTER TABLE meta DROP COLUMN previous",
		"ALTER TABLE meta DROP COLUMN commits", "ALTER TABLE meta DROP COLUMN place",
		"ALTER TABLE meta DROP COLUMN clock_time", "ALTER TABLE meta DROP COLUMN clock_elapsed",
		"ALTER TABLE meta DROP COLUMN clock_boot", "ALTER TABLE meta DROP COLUMN names",
		"DELETE FROM goose_db_version WHERE version_id > 1",
	} {
		if err := c.run(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// A store whose names have the forms of older rules gets the present ones. A user whose
// normal form another one has keeps its own.
func TestNamesAreRenewed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	var ids []int64
	for _, name := range []string{"strasse", "first", "second", "third", "plain"} {
		ids = append(ids, createUser(t, s, name).ID)
	}
	old := []struct{ username, usernameKey, email, emailKey string }{
		{"strasse", "strasse", "a@example.org", "a@example.org"},
		{"Straße", "straße", "b@example.org\n", "b@example.org"},
		{" Παππας\u200b", "παππας", "c@exam\u00adple.org", "c@example.org"},
		{"ΠΑΠΠΑΣ", "παππασ", "\u034fd@example.org", "\u034fd@example.org"},
		{"Plain", "plain", "plain@example.org", "plain@example.org"},
	}
	err := s.do(t.Context(), func(w *writer) error {
		for i, u := range old {
			err := w.conn.run("UPDATE users SET username = ?, username_key = ?, email = ?, email_key = ? WHERE user_id = ?",
				u.username, u.usernameKey, u.email, u.emailKey, ids[i])
			if err != nil {
				return err
			}
		}
		return w.conn.run("UPDATE meta SET names = 0")
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, path, 0) // forms of older rules are no damage
	var log strings.Builder
	s, err = Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	wantNames := []struct{ username, email, key string }{
		{"strasse", "a@example.org", "strasse"},
		{"Straße", "b@example.org", "straße"}, // another one has its normal form
		{"Παππας", "c@example.org", ""},
		{"ΠΑΠΠΑΣ", "d@example.org", "παππασ"},
		{"Plain", "plain@example.org", "plain"},
	}
	// Of the two that are one now, the one has the normal form that came first.
	wantNames[2].key = "παππας"
	for i, want := range wantNames {
		u, err := s.Get(t.Context(), ids[i])
		if err != nil {
			t.Fatal(err)
		}
		if u.Username != want.username || u.Email != want.email || u.Version != 1 {
			t.Errorf("user %d: got %q, %q, version %d, want %q, %q, 1", i, u.Username, u.Email, u.Version, want.username, want.email)
		}
		if got := storedKey(t, s, ids[i]); got != want.key {
			t.Errorf("user %d has the key %q, want %q", i, got, want.key)
		}
	}
	if n := strings.Count(log.String(), "no longer unique"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, log.String())
	}
	_, err = user.ApplyOne(t.Context(), s, user.Change{Op: createOp(t, "STRASSE", "new@example.org")})
	if !user.HasReason(err, user.UsernameTaken) {
		t.Errorf("a create with a taken name: %v, want %s", err, user.UsernameTaken)
	}
	_, err = user.ApplyOne(t.Context(), s, user.Change{Op: createOp(t, "new", "D@example.org")})
	if !user.HasReason(err, user.EmailTaken) {
		t.Errorf("a create with a taken e-mail address: %v, want %s", err, user.EmailTaken)
	}
	// The user that keeps its old form can be changed, its name given again and the rest.
	again, tags := "Straße", []string{"new"}
	op, err := user.NewUpdate(ids[1], user.Patch{Username: &again, Tags: &tags}, "")
	if err != nil {
		t.Fatal(err)
	}
	if result, err := user.ApplyOne(t.Context(), s, user.Change{Op: op}); err != nil || result.User.Version != 2 {
		t.Errorf("an update of the user that keeps its old form: %+v, %v", result, err)
	}
	wantFindings(t, path, 0)
	log.Reset()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil || log.Len() > 0 {
		t.Errorf("the second open: %v, %s", err, log.String())
	}
}

func createOp(t *testing.T, username, email string) *user.Create {
	t.Helper()
	op, err := user.NewCreate(username, email, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func storedKey(t *testing.T, s *Store, id int64) (key string) {
	t.Helper()
	err := s.do(t.Context(), func(w *writer) error {
		return w.conn.rows("SELECT username_key FROM users WHERE user_id = ?", func(row []driver.Value) error {
			key = asText(row[0])
			return nil
		}, id)
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func wantFindings(t *testing.T, path string, want int) {
	t.Helper()
	f, err := OpenFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := f.Check(t.Context(), nil)
	if err != nil || len(findings) != want {
		t.Errorf("Check() = %q, %v, want %d findings", findings, err, want)
	}
}
