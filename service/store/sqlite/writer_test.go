package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// hold keeps the writer in a transaction until let is called.
func hold(t *testing.T, s *Store) (let func()) {
	t.Helper()
	held, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.do(t.Context(), func(*writer) error { close(held); <-release; return nil })
	}()
	<-held
	return func() {
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// Who has been told that time is up must not find the change carried out later.
func TestAWriteThatHasWaitedTooLongIsNotCarriedOut(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	let := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	late := s.Submit(ctx, user.Batch{Changes: []user.Change{{Op: mustCreate(t, "anna")}}})
	timely := s.Submit(t.Context(), user.Batch{Changes: []user.Change{{Op: mustCreate(t, "berta")}}})
	cancel()
	let()
	if _, err := late.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if results := mustEnd(t, timely); results[0].Position != 1 {
		t.Errorf("the write behind it has position %d, want 1", results[0].Position)
	}
	createUser(t, s, "anna") // the name is free
}

// After a failed sync the write-ahead log may be the only whole copy of what was
// acknowledged: closing the store must neither copy nor remove it.
func TestCloseAfterAFailedSyncLeavesTheLogAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	u := createUser(t, s, "anna")
	err := s.do(t.Context(), func(w *writer) error {
		w.commit = func() error { return errors.New("planned failure of the sync") }
		return nil
	})
	if !user.HasReason(err, user.StoreReadOnly) {
		t.Fatal(err)
	}
	files := func() (both [2][]byte) {
		for i, name := range []string{path, path + "-wal"} {
			if both[i], err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
		return both
	}
	before := files()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after := files(); len(after[1]) == 0 || !bytes.Equal(before[0], after[0]) || !bytes.Equal(before[1], after[1]) {
		t.Error("closing the store has changed its files")
	}
	if got, err := openTest(t, path).Get(t.Context(), u.ID); err != nil || got.Username != "anna" {
		t.Error(got, err)
	}
}

// The batches whose commit failed without anybody knowing what is on disk are not
// refused; those that come later are.
func TestAFailedSyncLeavesItsOwnBatchesUnknown(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	err := s.do(t.Context(), func(w *writer) error {
		commit := w.commit
		w.commit = func() error {
			w.commit = func() error { return errors.New("planned failure of the sync") }
			return commit()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	create := func() error {
		_, err := user.ApplyOne(t.Context(), s, user.Change{Op: mustCreate(t, "anna")})
		return err
	}
	if err := create(); !user.HasReason(err, user.StoreUnavailable) || err.Error() != user.NewOutcomeUnknownError().Error() {
		t.Errorf("the batch whose commit failed: %v", err)
	}
	if err := create(); !user.HasReason(err, user.StoreReadOnly) {
		t.Errorf("a later one: %v", err)
	}
}
