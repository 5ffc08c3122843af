package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// A repeated request returns the result that an earlier program stored.
func TestRepeatedRequestReturnsOldStoredResult(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	change := user.Change{
		Op:             &user.SetStatus{ID: u.ID, Status: user.StatusSuspended},
		IdempotencyKey: &user.IdempotencyKey{Caller: "c", Procedure: "p", ID: "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},
	}
	if _, err := user.ApplyOne(t.Context(), s, change); err != nil {
		t.Fatal(err)
	}
	if err := s.queue.Do(t.Context(), func(w *writer) error {
		return w.conn.run("UPDATE request_ids SET answer = ?", []byte("A\x02\x2a\x2a\x01"))
	}); err != nil {
		t.Fatal(err)
	}
	got, err := user.ApplyOne(t.Context(), s, change)
	if err != nil || got.Outcome != user.OutcomeUpdated || got.Position != 42 || got.User != nil {
		t.Errorf("repeated request = %+v, %v, want the stored result at position 42 without a user", got, err)
	}
}
