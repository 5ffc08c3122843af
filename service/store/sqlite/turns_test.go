package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// creates returns a batch of n creates with names of their own.
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

// One caller's large batches do not hold up another's single change, which waits for no more than
// a turn of theirs and shares its transaction. Both keep their order.
func TestASingleChangeDoesNotWaitForLargeBatches(t *testing.T) {
	const batches, size = 20, 1000
	var commits []int
	s, err := Open(t.Context(), Options{
		Path:     filepath.Join(t.TempDir(), "users.db"),
		OnCommit: func(c CommitStats) { commits = append(commits, c.Changes) },
	})
	if err != nil {
		t.Fatal(err)
	}
	let := hold(t, s)
	greedy, modest := user.WithCaller(t.Context(), "greedy"), user.WithCaller(t.Context(), "modest")
	var large []*user.Pending
	for i := range batches {
		large = append(large, s.Submit(greedy, creates(t, fmt.Sprintf("greedy%d", i), size)))
	}
	single := s.Submit(modest, creates(t, "modest", 1))
	let()
	if got := mustEnd(t, single)[0].Position; got != turnUnits+1 {
		t.Errorf("position of the single change = %d, want %d: behind one turn of the other caller", got, turnUnits+1)
	}
	last := int64(0)
	for i, p := range large {
		for _, at := range positions(mustEnd(t, p)) {
			if at <= last {
				t.Fatalf("batch %d has position %d behind %d", i, at, last)
			}
			last = at
		}
	}
	if last != batches*size+1 {
		t.Errorf("the last position = %d, want %d", last, batches*size+1)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if want := turnUnits + 1; commits[0] != want { // the turn, and the single change
		t.Errorf("the first commit has %d changes, want %d", commits[0], want)
	}
	if most := slices.Max(commits); most > maxGroup {
		t.Errorf("a commit has %d changes, want at most %d", most, maxGroup)
	}
}

func TestBatchesTakeTurns(t *testing.T) {
	opts := Options{Path: filepath.Join(t.TempDir(), "users.db"), turnUnits: 2}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	let := hold(t, s)
	a, b, c := user.WithCaller(t.Context(), "a"), user.WithCaller(t.Context(), "b"), user.WithCaller(t.Context(), "c")
	pending := []*user.Pending{
		s.Submit(a, creates(t, "first", 3)), s.Submit(a, creates(t, "second", 1)),
		s.Submit(b, user.Batch{Changes: creates(t, "third", 3).Changes, Atomic: true}), s.Submit(c, creates(t, "fourth", 1)),
	}
	let()
	// a has 2 units of its first batch, b the whole of its own, c its one; then a is alone.
	for i, want := range [][]int64{{1, 2, 7}, {8}, {3, 4, 5}, {6}} {
		if got := positions(mustEnd(t, pending[i])); !slices.Equal(got, want) {
			t.Errorf("positions of batch %d = %v, want %v", i, got, want)
		}
	}
}

// failing makes the commits fail that are not nil, one after the other.
func failing(t *testing.T, s *Store, commits ...error) {
	t.Helper()
	err := s.do(t.Context(), func(w *writer) error {
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

// Where a later part of a batch fails, what is committed keeps its results, what may be stored is
// not refused for certain, and what was not tried is.
func TestABatchThatFailsHalfWay(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "users.db"), turnUnits: 2, maxGroup: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // its writes have stopped
	failing(t, s, nil, nil, errors.New("planned failure of the sync"))
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

// The rest of a batch is not carried out for a caller that has gone.
func TestABatchThatIsGivenUpHalfWay(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "users.db"), turnUnits: 2, maxGroup: 2})
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
		t.Errorf("the head = %d, want 2", head)
	}
}

// What one caller has waiting leaves room for others.
func TestACallerCannotFillTheQueue(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	let := hold(t, s)
	greedy, modest := user.WithCaller(t.Context(), "greedy"), user.WithCaller(t.Context(), "modest")
	for range callerLength {
		s.Submit(greedy, user.Batch{})
	}
	ended, cancel := context.WithCancel(greedy)
	full := make(chan error)
	go func() {
		_, err := s.Submit(ended, user.Batch{}).Wait(t.Context())
		full <- err
	}()
	single := s.Submit(modest, creates(t, "modest", 1)) // it returns, though the other one waits
	cancel()
	if err := <-full; !errors.Is(err, context.Canceled) {
		t.Errorf("a batch beyond the caller's room: %v, want canceled", err)
	}
	let()
	mustEnd(t, single)
}
