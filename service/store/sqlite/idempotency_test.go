package sqlite

import (
	"database/sql/driver"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/user"
)

// Requests without effect on a large user store one copy of it, which expires with them.
func TestStoredResultsShareALargeUser(t *testing.T) {
	now := time.Now()
	s, err := Open(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "users.db"), Logger: slog.New(slog.DiscardHandler), Clock: clock.FromWallClock(func() time.Time { return now }),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	metadata := make(map[string]string)
	for i := range 60 {
		metadata[fmt.Sprint("key", i)] = strings.Repeat("v", 1000)
	}
	op, err := user.NewCreate(user.User{Username: "anna", Email: "anna@example.org", Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	created, err := user.ApplyOne(t.Context(), s, user.Change{Op: op})
	if err != nil {
		t.Fatal(err)
	}
	const requests = 200
	for i := range requests {
		key := &user.IdempotencyKey{Caller: "c", Procedure: "p", ID: fmt.Sprint(i), Fingerprint: [32]byte{1}}
		if _, err := user.ApplyOne(t.Context(), s, user.Change{Op: &user.ReadBarrier{ID: created.User.ID}, IdempotencyKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	stored := func() (rows, bytes int64) {
		t.Helper()
		err := s.do(t.Context(), func(w *writer) error {
			return w.conn.rows("SELECT count(*), coalesce(sum(length(answer)), 0) FROM "+
				"(SELECT answer FROM request_ids UNION ALL SELECT answer FROM request_users)", func(row []driver.Value) error {
				rows, bytes = asNumber(row[0]), asNumber(row[1])
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows, bytes
	}
	if rows, bytes := stored(); rows != requests+1 || bytes > 64<<10+requests*64 {
		t.Errorf("%d results: %d rows with %d bytes, want one copy of the user", requests, rows, bytes)
	}
	now = now.Add(2*user.RequestIDLifetime + time.Second)
	for range 3 {
		if _, err := s.ExpireRequestIDs(t.Context(), requests); err != nil {
			t.Fatal(err)
		}
	}
	if rows, _ := stored(); rows != 0 {
		t.Errorf("%d rows left after all results expired, want 0", rows)
	}
}
