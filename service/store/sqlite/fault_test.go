//go:build faults

package sqlite

import (
	"database/sql/driver"
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func TestInjectedFaults(t *testing.T) {
	open := func(t *testing.T, f fault) *Store {
		t.Helper()
		t.Setenv("USERD_FAULT", string(f))
		return openTest(t, filepath.Join(t.TempDir(), "users.db"))
	}
	t.Run(string(faultAckBeforeCommit), func(t *testing.T) {
		s := open(t, faultAckBeforeCommit)
		commit, resume := s.writer.commit, make(chan struct{})
		s.writer.commit = func() error { <-resume; return commit() }
		u := createUser(t, s, "anna")
		if _, err := s.Get(t.Context(), u.ID); !user.HasReason(err, user.UserNotFound) {
			t.Error("Get found the user: the result was returned after the commit")
		}
		close(resume)
	})
	t.Run(string(faultPublishEarly), func(t *testing.T) {
		s := open(t, faultPublishEarly)
		early := false
		s.Observe(func(c user.Commit) {
			_, err := s.Get(t.Context(), c.Changes[0].UserID)
			early = user.HasReason(err, user.UserNotFound)
		})
		createUser(t, s, "anna")
		if !early {
			t.Error("the observer was called after the commit")
		}
	})
	t.Run(string(faultSyncOff), func(t *testing.T) {
		s := open(t, faultSyncOff)
		err := s.do(t.Context(), func(w *writer) error {
			return w.conn.rows("PRAGMA synchronous", func(row []driver.Value) error {
				if asNumber(row[0]) != 0 {
					t.Errorf("synchronous = %v, want 0", row[0])
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
