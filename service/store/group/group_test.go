package group

import (
	"slices"
	"strings"
	"testing"
	"time"

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

// applySized sets results with users of the size, and cuts the last part of the group like a store. It returns the number of
// changes applied.
func applySized(g *Group[any], size int) int {
	p := g.Parts[len(g.Parts)-1]
	for i := p.From; i < p.To; i++ {
		p.Results[i] = user.Result{User: &user.User{Metadata: map[string]string{"k": strings.Repeat("v", size)}}}
		p.Limit(&p.Results[i])
		if g.Cut(i + 1) {
			break
		}
	}
	p = g.Parts[len(g.Parts)-1]
	return p.To - p.From
}

// A part ends when the users that it changed are as large as a turn, later parts of the batch have as many changes, and the
// caller has then used its turn. All changes of the batch are applied.
func TestChangesOfLargeUsersCountBySize(t *testing.T) {
	const turn, changes, perTurn = 8, 20, 2 // a user has four units
	q := NewQueue[any](Options{TurnUnits: turn})
	greedy := q.Submit(user.WithCaller(t.Context(), "greedy"), batch(changes))
	g := newGroup(q)
	g.alternated = time.Now() // other callers write too
	var sizes []int
	for range changes {
		for g.Take() {
			sizes = append(sizes, applySized(g, 4*unitBytes))
		}
		if got := len(g.Parts); got > 1 {
			t.Fatalf("a group has %d parts of %v changes, want 1", got, sizes)
		}
		if g.Changes > perTurn {
			t.Fatalf("Changes = %d, want at most %d", g.Changes, perTurn)
		}
		g.Complete()
		g.reset()
	}
	if want := slices.Repeat([]int{perTurn}, changes/perTurn); !slices.Equal(sizes, want) {
		t.Errorf("parts have %v changes, want %v", sizes, want)
	}
	if results, err := greedy.Wait(t.Context()); err != nil || len(results) != changes {
		t.Errorf("result = %d results, %v, want %d", len(results), err, changes)
	}
	checkEmpty(t, q)
}

// Single changes of large users use the turn of their caller too.
func TestSingleChangesOfLargeUsersCountBySize(t *testing.T) {
	q := NewQueue[any](Options{TurnUnits: 8})
	for range 10 {
		q.Submit(user.WithCaller(t.Context(), "greedy"), batch(1))
	}
	g := newGroup(q)
	g.alternated = time.Now()
	for g.Take() {
		applySized(g, 4*unitBytes)
	}
	if g.Changes != 2 {
		t.Errorf("a group has %d changes, want 2", g.Changes)
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
