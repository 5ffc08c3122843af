package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// creates returns a batch of n creates with different names.
func creates(t *testing.T, name string, n int) (batch user.Batch) {
	t.Helper()
	for i := range n {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprintf("%s-%d", name, i))})
	}
	return batch
}

// positions returns the position of each result.
func positions(results []user.Result) (positions []int64) {
	for _, r := range results {
		positions = append(positions, r.Position)
	}
	return positions
}

// A single change waits for at most one turn of another caller's large batches, and shares its
// transaction. The batches keep their order.
func TestSingleChangeDoesNotWaitForLargeBatches(t *testing.T) {
	const batches, size, turn, most = 15, 100, 16, 64
	var commits []int
	s, err := Open(t.Context(), Options{
		Path:     filepath.Join(t.TempDir(), "users.db"),
		OnCommit: func(c CommitStats) { commits = append(commits, c.Changes) },
		group:    group.Options{TurnUnits: turn, MaxUnits: most},
	})
	if err != nil {
		t.Fatal(err)
	}
	resume := hold(t, s) // not longer than the timeout of a stalled writer
	greedy, modest := user.WithCaller(t.Context(), "greedy"), user.WithCaller(t.Context(), "modest")
	var large []*user.Pending
	for i := range batches {
		large = append(large, s.Submit(greedy, creates(t, fmt.Sprintf("greedy%d", i), size)))
	}
	single := s.Submit(modest, creates(t, "modest", 1))
	resume()
	if got := mustWait(t, single)[0].Position; got != turn+1 {
		t.Errorf("position of the single change = %d, want %d, after one turn of the other caller", got, turn+1)
	}
	last := int64(0)
	for i, p := range large {
		for _, at := range positions(mustWait(t, p)) {
			if at <= last {
				t.Fatalf("batch %d: position %d after %d", i, at, last)
			}
			last = at
		}
	}
	if last != batches*size+1 {
		t.Errorf("last position = %d, want %d", last, batches*size+1)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if want := turn + 1; commits[0] != want { // a turn and the single change
		t.Errorf("first commit has %d changes, want %d", commits[0], want)
	}
	if got := slices.Max(commits[1:4]); got >= 2*turn { // the other caller has just written
		t.Errorf("the next commits have up to %d changes, want fewer than %d", got, 2*turn)
	}
	if got := slices.Max(commits); got > most {
		t.Errorf("largest commit has %d changes, want at most %d", got, most)
	}
}

func TestBatchesTakeTurns(t *testing.T) {
	opts := Options{Path: filepath.Join(t.TempDir(), "users.db"), group: group.Options{TurnUnits: 2}}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	resume := hold(t, s)
	a, b, c := user.WithCaller(t.Context(), "a"), user.WithCaller(t.Context(), "b"), user.WithCaller(t.Context(), "c")
	pending := []*user.Pending{
		s.Submit(a, creates(t, "first", 3)), s.Submit(a, creates(t, "second", 1)),
		s.Submit(b, user.Batch{Changes: creates(t, "third", 3).Changes, Atomic: true}), s.Submit(c, creates(t, "fourth", 1)),
	}
	resume()
	// Turns: 2 units of a, the atomic batch of b, the change of c, then the rest of a.
	for i, want := range [][]int64{{1, 2, 7}, {8}, {3, 4, 5}, {6}} {
		if got := positions(mustWait(t, pending[i])); !slices.Equal(got, want) {
			t.Errorf("positions of batch %d = %v, want %v", i, got, want)
		}
	}
}

// failing injects errors into the next commits; nil means success.
func failing(t *testing.T, s *Store, commits ...error) {
	t.Helper()
	err := s.queue.Do(t.Context(), func(w *writer) error {
		commit := w.commit
		w.commit = func() error {
			if len(commits) == 0 {
				return commit()
			}
			err := commits[0]
			if commits = commits[1:]; err != nil {
				return err
			}
			return commit()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// If the commit of a later part of a batch fails, committed changes keep their results, changes in
// the failed commit have an unknown outcome, and the remaining ones fail with STORE_READ_ONLY.
func TestBatchFailsPartWay(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "users.db"), group: group.Options{TurnUnits: 2, MaxUnits: 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // fails: writes have stopped
	failing(t, s, nil, nil, errors.New("injected sync failure"))
	results, err := s.Submit(t.Context(), creates(t, "user", 6)).Wait(t.Context())
	if err != nil || len(results) != 6 {
		t.Fatalf("Wait = %d results, %v, want 6", len(results), err)
	}
	for i, r := range results {
		switch {
		case i < 2 && (r.Err != nil || r.User == nil):
			t.Errorf("change %d = %v, want success", i, r.Err)
		case i >= 2 && i < 4 && (r.Err == nil || r.Err.Error() != user.NewOutcomeUnknownError().Error()):
			t.Errorf("change %d = %v, want %v", i, r.Err, user.NewOutcomeUnknownError())
		case i >= 4 && !user.HasReason(r.Err, user.StoreReadOnly):
			t.Errorf("change %d = %v, want %s", i, r.Err, user.StoreReadOnly)
		}
	}
}

// The rest of a batch is not applied after its context has ended.
func TestBatchIsCanceledPartWay(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "users.db"), group: group.Options{TurnUnits: 2, MaxUnits: 2}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Observe(func(user.Commit) { cancel() })
	pending := s.Submit(ctx, creates(t, "user", 6))
	<-pending.Done()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if head := s.head.Load().Position; head != 2 {
		t.Errorf("head position = %d, want 2", head)
	}
}

// One caller cannot fill the queue.
func TestCallerCannotFillQueue(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	resume := hold(t, s)
	greedy, modest := user.WithCaller(t.Context(), "greedy"), user.WithCaller(t.Context(), "modest")
	for range callerLength {
		s.Submit(greedy, user.Batch{})
	}
	ended, cancel := context.WithCancel(greedy)
	blocked := make(chan error)
	go func() {
		_, err := s.Submit(ended, user.Batch{}).Wait(t.Context())
		blocked <- err
	}()
	single := s.Submit(modest, creates(t, "modest", 1)) // does not block
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) {
		t.Errorf("batch beyond the caller's share: error = %v, want canceled", err)
	}
	resume()
	mustWait(t, single)
}
