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

// hold blocks the writer in a transaction until resume is called.
func hold(t *testing.T, s *Store) (resume func()) {
	t.Helper()
	held, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.queue.Do(t.Context(), func(*writer) error { close(held); <-release; return nil })
	}()
	<-held
	return func() {
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// A write whose context ended while it was queued is not applied.
func TestCanceledWriteIsNotApplied(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	resume := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	canceled := s.Submit(ctx, user.Batch{Changes: []user.Change{{Op: mustCreate(t, "anna")}}})
	next := s.Submit(t.Context(), user.Batch{Changes: []user.Change{{Op: mustCreate(t, "berta")}}})
	cancel()
	resume()
	if _, err := canceled.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if results := mustWait(t, next); results[0].Position != 1 {
		t.Errorf("position of the next write = %d, want 1", results[0].Position)
	}
	createUser(t, s, "anna") // the name is free
}

// After a failed sync Close must neither checkpoint nor remove the write-ahead log, which may be the
// only intact copy of acknowledged writes.
func TestCloseAfterFailedSyncKeepsWAL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	u := createUser(t, s, "anna")
	err := s.queue.Do(t.Context(), func(w *writer) error {
		w.commit = func() error { return errors.New("injected sync failure") }
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
		t.Error("Close modified the files")
	}
	if got, err := openTest(t, path).Get(t.Context(), u.ID); err != nil || got.Username != "anna" {
		t.Error(got, err)
	}
}

// The outcome of batches in a commit whose sync failed is unknown. Later batches fail with
// STORE_READ_ONLY.
func TestFailedSyncOutcomeIsUnknown(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	err := s.queue.Do(t.Context(), func(w *writer) error {
		commit := w.commit
		w.commit = func() error {
			w.commit = func() error { return errors.New("injected sync failure") }
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
		t.Errorf("batch of the failed commit: error = %v, want an unknown outcome", err)
	}
	if err := create(); !user.HasReason(err, user.StoreReadOnly) {
		t.Errorf("later batch: error = %v, want STORE_READ_ONLY", err)
	}
}
