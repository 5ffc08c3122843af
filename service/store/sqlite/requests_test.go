package sqlite

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// requestedCreates returns creates with request ids. Every tenth repeats the request before.
func requestedCreates(t *testing.T, n int) user.Batch {
	t.Helper()
	var b user.Batch
	for i := range n {
		if i%10 == 9 {
			b.Changes = append(b.Changes, b.Changes[i-1])
			continue
		}
		b.Changes = append(b.Changes, withRequestID(mustCreate(t, fmt.Sprint("user", i)), i))
	}
	return b
}

// results returns results with their users as texts.
func results(list ...user.Result) (texts []string) {
	for _, r := range list {
		texts = append(texts, fmt.Sprintf("%v %d %+v %+v", r.Outcome, r.Position, *r.User, r.Rows))
	}
	return texts
}

// A request of a batch may repeat one before it, in the batch or in an earlier one, however many rows one statement writes.
func TestRepeatedRequestsOfABatch(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, minLoad - 1, minLoad, 10, insertRows, 3*insertRows + 5, 500} {
		for _, atomic := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d changes, atomic %t", n, atomic), func(t *testing.T) {
				t.Parallel()
				s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
				b := requestedCreates(t, n)
				b.Atomic = atomic
				first := mustWait(t, s.Submit(t.Context(), b))
				for i := 9; i < n; i += 10 {
					if got, want := results(first[i]), results(first[i-1]); !slices.Equal(got, want) {
						t.Errorf("result %d = %q, want that of the request before, %q", i, got, want)
					}
				}
				if got, want := results(mustWait(t, s.Submit(t.Context(), b))...), results(first...); !slices.Equal(got, want) {
					t.Errorf("results of the repeated batch = %q, want those of the first, %q", got, want)
				}
				if rows, _ := storedResults(t, s); rows != int64(n-n/10) {
					t.Errorf("%d stored results, want %d", rows, n-n/10)
				}
			})
		}
	}
}

// The results of an atomic batch that fails are not stored.
func TestRequestsOfAFailedAtomicBatch(t *testing.T) {
	t.Parallel()
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	b := requestedCreates(t, 2*insertRows)
	b.Atomic = true
	valid := b.Changes
	b.Changes = slices.Concat(valid, []user.Change{withRequestID(&user.SetStatus{ID: 1, Status: user.StatusActive}, -1)})
	if _, err := s.Submit(t.Context(), b).Wait(t.Context()); !user.HasReason(err, user.UserNotFound) {
		t.Fatalf("Submit(batch with an unknown user) error = %v, want USER_NOT_FOUND", err)
	}
	if rows, _ := storedResults(t, s); rows != 0 {
		t.Errorf("%d stored results of a failed batch, want 0", rows)
	}
	b.Changes = valid
	for i, r := range mustWait(t, s.Submit(t.Context(), b)) {
		if r.Outcome != user.OutcomeCreated {
			t.Errorf("result %d = %+v, want a created user", i, r)
		}
	}
}

// A purge removes the results that were stored before it in the same batch.
func TestPurgeRemovesResultsOfItsBatch(t *testing.T) {
	t.Parallel()
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	id := createUser(t, s, "anna").ID
	ops := []user.Op{
		&user.SetStatus{ID: id, Status: user.StatusInactive}, &user.SetStatus{ID: id, Status: user.StatusActive},
		&user.Delete{ID: id}, &user.StartPurge{ID: id, Now: true},
	}
	var b user.Batch
	for i, op := range ops {
		b.Changes = append(b.Changes, withRequestID(op, i))
	}
	b.Changes = append(b.Changes, user.Change{Op: &user.Purge{ID: id}})
	mustWait(t, s.Submit(t.Context(), b))
	if rows, _ := storedResults(t, s); rows != 0 {
		t.Errorf("%d stored results after the purge, want 0", rows)
	}
}
