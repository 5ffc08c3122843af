package budget

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// fill reserves what is left of the share of a caller.
func fill(t *testing.T, r *Reservation) {
	t.Helper()
	for n := r.Budget().CallerShare(Known); n > 0; n /= 2 {
		for r.Grow(Connection, n) == nil {
		}
	}
}

func TestGrowTakesWhatWasReservedAhead(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	r, other := open(b, Known, "a"), open(b, Known, "a")
	if !r.Ahead(1000, 1000) {
		t.Fatal("Ahead(1000) = false, want true")
	}
	fill(t, other)
	if err := errors.Join(r.Grow(Message, 600), r.Grow(Body, 400)); err != nil {
		t.Errorf("Grow() of what was reserved ahead = %v, want nil", err)
	}
	wantScope(t, r.Grow(Body, 1), ScopeCaller)
	if message, body, write := r.Held(Message), r.Held(Body), r.Held(Write); message != 600 || body != 400 || write != 0 || r.Grown() != 1000 {
		t.Errorf("message, body, write and grown have %d, %d, %d and %d bytes, want 600, 400, 0 and 1000", message, body, write, r.Grown())
	}
	r.Release()
	other.Release()
	if b.Total() != 0 || b.Reserved(Write) != 0 {
		t.Errorf("the ledger ends with %d bytes, %d of them writes, want none", b.Total(), b.Reserved(Write))
	}
}

// What is reserved ahead is at most half of what the other reservations of the caller leave, and of an equal share under pressure.
func TestAheadLeavesMemory(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	share := b.CallerShare(Known)
	ahead := func() (n int64) {
		holders := make([]*Reservation, 2*aheadMost)
		for i := range holders {
			holders[i] = open(b, Known, "a")
			holders[i].Ahead(0, share)
			n += holders[i].Held(Write)
		}
		for _, r := range holders {
			r.Release()
		}
		return n
	}
	if got, want := ahead(), share/aheadShare; got != want {
		t.Errorf("%d bytes are reserved ahead, want %d", got, want)
	}
	other := open(b, Known, "a")
	if err := other.Grow(Connection, share/2); err != nil {
		t.Fatal(err)
	}
	if got, want := ahead(), share/2/aheadShare; got != want {
		t.Errorf("beside half of the share %d bytes are reserved ahead, want %d", got, want)
	}
	other.Shrink(Connection, share)
	for _, caller := range []string{"b", "c", "d"} {
		fill(t, open(b, Known, caller))
	}
	if got, want := ahead(), b.equalShare()/aheadShare; b.Level() == Normal || got != want {
		t.Errorf("at level %v %d bytes are reserved ahead, want %d", b.Level(), got, want)
	}
}

// Holders that wait get memory in their order when it is released, before others that ask.
func TestAwaitAheadIsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := unobserved(Options{})
		other := open(b, Known, "a")
		fill(t, other)
		var order []int
		for i := range 5 {
			r := open(b, Known, "a")
			go func() {
				if err := r.AwaitAhead(t.Context(), 1000, 1000); err != nil {
					t.Error(err)
				}
				order = append(order, i)
			}()
			synctest.Wait()
		}
		for i := range 5 {
			other.Shrink(Connection, 1999)
			synctest.Wait()
			if len(order) != i {
				t.Errorf("without memory for another one %v have memory, want %d", order, i)
			}
			other.Shrink(Connection, 1) // half of what is left
			synctest.Wait()
			if open(b, Known, "a").Ahead(1, 1) {
				t.Error("Ahead() beside holders that wait = true, want false")
			}
		}
		if want := []int{0, 1, 2, 3, 4}; !slices.Equal(order, want) {
			t.Errorf("%v have memory, want %v", order, want)
		}
		if !open(b, Known, "b").Ahead(1, 1) {
			t.Error("Ahead() of another caller = false, want true")
		}
	})
}

// A holder that waits has released what it reserved ahead: others may need it.
func TestAwaitAheadReleasesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := unobserved(Options{})
		r, other := open(b, Known, "a"), open(b, Known, "a")
		if !r.Ahead(1000, 1000) {
			t.Fatal("Ahead() = false, want true")
		}
		fill(t, other)
		began, rejected := time.Now(), b.Rejected(ScopeCaller)
		err := r.AwaitAhead(t.Context(), 2000, 2000)
		wantScope(t, err, ScopeCaller)
		if waited := time.Since(began); waited != aheadTimeout || r.Held(Write) != 0 || b.Rejected(ScopeCaller) != rejected+1 {
			t.Errorf("AwaitAhead() failed after %v with %d bytes, want %v and none", waited, r.Held(Write), aheadTimeout)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		cancel(gone)
		if err := r.AwaitAhead(ctx, 1000, 1000); !errors.Is(err, gone) {
			t.Errorf("AwaitAhead(canceled) = %v, want %v", err, gone)
		}
		r.Release()
		wantScope(t, r.AwaitAhead(t.Context(), 1, 1), ScopeTotal)
	})
}

// If nothing is released, the holder that waits in front gets memory of what requests that are being read would need: the others
// may wait for messages behind its own.
func TestAwaitAheadWithoutReleases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := unobserved(Options{})
		for range aheadMost {
			open(b, Known, "a").Ahead(0, b.CallerShare(Known))
		}
		began := time.Now()
		if err := open(b, Known, "a").AwaitAhead(t.Context(), 1000, 1000); err != nil || time.Since(began) != aheadRetry {
			t.Errorf("AwaitAhead() = %v after %v, want nil after %v", err, time.Since(began), aheadRetry)
		}
	})
}
