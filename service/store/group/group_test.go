package group

import (
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// batch returns a batch of n changes.
func batch(n int) (b user.Batch) {
	for range n {
		b.Changes = append(b.Changes, user.Change{Op: &user.ReadBarrier{ID: 1}})
	}
	return b
}

// A group of one caller that has used its turn accepts a change of another caller before it closes,
// also if the first caller's next part precedes that change in the queue.
func TestOpenGroupAcceptsOtherCallers(t *testing.T) {
	q := NewQueue[any](Options{TurnUnits: 2})
	q.Submit(user.WithCaller(t.Context(), "greedy"), batch(3))
	q.Submit(user.WithCaller(t.Context(), "modest"), batch(1))
	g := &Group[any]{queue: q, units: map[string]int{"greedy": 5}, all: 5}
	if !g.Take() {
		t.Fatal("Take() = false, want the change of the other caller")
	}
	if got, want := g.Parts[0].Caller, "modest"; got != want {
		t.Errorf("the group accepts a change of %q, want %q", got, want)
	}
	if g.Take() {
		t.Error("Take() = true for a caller that has used its turn, want false")
	}
}

// The weight of a batch does not exceed the capacity, or Submit would block indefinitely.
func TestLargestBatchFits(t *testing.T) {
	details := map[string]string{"k": strings.Repeat("x", 1<<20)}
	var b user.Batch
	for range 100 {
		b.Changes = append(b.Changes, user.Change{Op: &user.Record{ID: 1, Details: details}})
	}
	if got := weigh(b); got != CallerBytes {
		t.Errorf("weigh = %d, want %d", got, CallerBytes)
	}
}
