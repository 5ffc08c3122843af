package sqlite

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	driverpkg "modernc.org/sqlite"

	"github.com/yourorg/userservice/service/user"
)

// Version 1 had no last_activity_id, and did not set status_position for deletions and undeletions.
func TestMigratePositions(t *testing.T) {
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
		op, err := user.NewCreate(user.User{Username: name, Email: name + "@example.org"})
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
	apply(&user.Record{ID: ids[0], Action: "app.login"}) // not a change
	want, err := s.GetMany(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeVersion1(t, path)
	s = openTest(t, path)
	got, err := s.GetMany(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("user %d after the migration = %+v, want %+v", i, got[i], want[i])
		}
	}
}

// Check of a store with an older schema checks all but the users, and says how to migrate it.
func TestCheckOfOlderSchema(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	op, err := user.NewCreate(user.User{Username: "anna", Email: "anna@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := user.ApplyOne(t.Context(), s, user.Change{Op: op}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeVersion1(t, path)
	check := func() ([]string, error) {
		f, err := OpenFile(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return f.Check(t.Context(), nil)
	}
	findings, err := check()
	if err == nil || !strings.Contains(err.Error(), "schema version 1 is older") || !strings.Contains(err.Error(), "migrate") || len(findings) > 0 {
		t.Errorf("Check of version 1 = %v, %v, want only an error that says how to migrate", findings, err)
	}
	if err := openTest(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if findings, err := check(); err != nil || len(findings) > 0 {
		t.Errorf("Check after the migration = %v, %v, want none", findings, err)
	}
	makeVersion1(t, path)
	c, err := connect(t.Context(), dsn(path, readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.run("UPDATE meta SET time = time + 1"), c.close()); err != nil {
		t.Fatal(err)
	}
	if findings, err := check(); err == nil || len(findings) != 1 {
		t.Errorf("Check of version 1 with damage = %v, %v, want a finding and the error", findings, err)
	}
}

// makeVersion1 downgrades a closed store to schema version 1.
func makeVersion1(t *testing.T, path string) {
	t.Helper()
	c, err := connect(t.Context(), dsn(path, readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	statements := []string{
		`UPDATE users SET status_position = (SELECT max(position) FROM log
			WHERE log.user_id = users.user_id AND action IN ('user.created', 'user.status_changed'))`,
		"DROP TABLE terms",
		"DROP TABLE unused_terms",
		"DROP INDEX users_created",
		"DROP INDEX users_last_activity",
		"CREATE INDEX users_updated ON users (updated_at)",
		"DELETE FROM goose_db_version WHERE version_id > 1",
	}
	initial := columnsOfVersion1(t)
	if err := c.rows(allColumnsQuery, func(row []driver.Value) error {
		table, column := asText(row[0]), asText(row[1])
		if slices.ContainsFunc(initial, func(name string) bool { return strings.HasPrefix(name, table+".") }) &&
			!slices.Contains(initial, table+"."+column) {
			statements = append(statements, "ALTER TABLE "+table+" DROP COLUMN "+column)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range statements {
		if err := c.run(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

const allColumnsQuery = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"

// columnsOfVersion1 returns the columns that the first migration creates, as table.column.
func columnsOfVersion1(t *testing.T) (columns []string) {
	t.Helper()
	initial, err := migrationFiles.ReadFile("migrations/00001_initial.sql")
	if err != nil {
		t.Fatal(err)
	}
	connector, err := driverpkg.NewConnector(dsn(filepath.Join(t.TempDir(), "version1.db"), readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), string(initial)); err != nil {
		t.Fatal(err)
	}
	rows, err := db.QueryContext(t.Context(), allColumnsQuery)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		columns = append(columns, table+"."+column)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return columns
}

// Open renormalizes names that were stored by older rules. A user whose new normal form is
// taken keeps its old one.
func TestNamesAreRenormalized(t *testing.T) {
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
	err := s.queue.Do(t.Context(), func(w *writer) error {
		for i, u := range old {
			err := w.conn.run("UPDATE users SET username = ?, username_key = ?, email = ?, email_key = ? WHERE user_id = ?",
				u.username, u.usernameKey, u.email, u.emailKey, ids[i])
			if err != nil {
				return err
			}
		}
		return errors.Join(w.conn.run("UPDATE meta SET names = 0, indexed = 0"), w.conn.run("INSERT INTO terms(terms) VALUES ('delete-all')"))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, path, 0) // old normal forms are not damage
	var log strings.Builder
	s, err = Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	wantNames := []struct{ username, email, key string }{
		{"strasse", "a@example.org", "strasse"},
		{"Straße", "b@example.org", "straße"}, // its normal form is taken
		{"Παππας", "c@example.org", ""},
		{"ΠΑΠΠΑΣ", "d@example.org", "παππασ"},
		{"Plain", "plain@example.org", "plain"},
	}
	// The lower user ID of two with the same normal form gets it.
	wantNames[2].key = "παππας"
	for i, want := range wantNames {
		u, err := s.Get(t.Context(), ids[i])
		if err != nil {
			t.Fatal(err)
		}
		if u.Username != want.username || u.Email != want.email || u.Version != 1 {
			t.Errorf("user %d = %q, %q, version %d, want %q, %q, version 1", i, u.Username, u.Email, u.Version, want.username, want.email)
		}
		if got := storedKey(t, s, ids[i]); got != want.key {
			t.Errorf("user %d: username_key = %q, want %q", i, got, want.key)
		}
	}
	if n := strings.Count(log.String(), "no longer unique"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, log.String())
	}
	_, err = user.ApplyOne(t.Context(), s, user.Change{Op: createOp(t, "STRASSE", "new@example.org")})
	if !user.HasReason(err, user.UsernameTaken) {
		t.Errorf("create with a taken name: error = %v, want %s", err, user.UsernameTaken)
	}
	_, err = user.ApplyOne(t.Context(), s, user.Change{Op: createOp(t, "new", "D@example.org")})
	if !user.HasReason(err, user.EmailTaken) {
		t.Errorf("create with a taken e-mail address: error = %v, want %s", err, user.EmailTaken)
	}
	// The user that keeps its old normal form can be updated.
	again, tags := "Straße", []string{"new"}
	op, err := user.NewUpdate(ids[1], user.NewPatch(user.User{Username: again, Tags: tags}), "")
	if err != nil {
		t.Fatal(err)
	}
	if result, err := user.ApplyOne(t.Context(), s, user.Change{Op: op}); err != nil || result.User.Version != 2 {
		t.Errorf("update of the user with the old normal form = %+v, %v", result, err)
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
		t.Errorf("second Open: Close error = %v, log %q, want none", err, log.String())
	}
}

func createOp(t *testing.T, username, email string) *user.Create {
	t.Helper()
	op, err := user.NewCreate(user.User{Username: username, Email: email})
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func storedKey(t *testing.T, s *Store, id int64) (key string) {
	t.Helper()
	err := s.queue.Do(t.Context(), func(w *writer) error {
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
		t.Errorf("Check = %q, %v, want %d findings", findings, err, want)
	}
}

// A store whose first start was killed before it set the application_id gets it at the next start: its backups can be restored.
func TestOpenMarksStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	if err := openTest(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	c, err := connect(t.Context(), address(path, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.run("PRAGMA application_id = 0"), c.close()); err != nil {
		t.Fatal(err)
	}
	if err := openTest(t, path).Backup(t.Context(), path+".backup", nil); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), path+".backup", path+".restored", RestoreOptions{}); err != nil {
		t.Errorf("Restore = %v, want no error", err)
	}
}
