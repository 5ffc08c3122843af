package sqlite

import (
	"path/filepath"
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
		"ALTER TABLE meta DROP COLUMN clock_boot",
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
