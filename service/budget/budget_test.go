package budget

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

const testLimit = 1 << 30

// unobserved returns a budget that ignores the memory in use.
func unobserved(opts Options) *Budget {
	opts.Limit = testLimit
	opts.InUse = func() (int64, int64) { return 0, 0 }
	return New(opts)
}

func open(b *Budget, class Class, caller string) *Reservation {
	r := new(Reservation)
	r.Open(b, nil, class, caller)
	return r
}

func wantScope(t *testing.T, err error, want Scope) {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) || refused.Scope != want {
		t.Errorf("Grow() = %v, want scope %q", err, want)
	}
}

func TestOneCallerHasItsShare(t *testing.T) {
	t.Parallel()
	for class, share := range map[Class]int64{Known: callerShare, Anonymous: anonymousCallerShare} {
		b := unobserved(Options{})
		first, second, other := open(b, class, "a"), open(b, class, "a"), open(b, class, "b")
		if err := first.Grow(Connection, b.Capacity()/share); err != nil {
			t.Fatalf("class %d: Grow(whole share) = %v, want nil", class, err)
		}
		wantScope(t, second.Grow(Connection, 1), ScopeCaller)
		if err := other.Grow(Connection, 1); err != nil {
			t.Errorf("class %d: Grow() of another caller = %v, want nil", class, err)
		}
		first.Shrink(Connection, 10)
		if err := second.Grow(Connection, 10); err != nil {
			t.Errorf("class %d: Grow() after Shrink() = %v, want nil", class, err)
		}
	}
}

func TestAnonymousCallersShareAQuarter(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	for i := range 2 {
		if err := open(b, Anonymous, fmt.Sprint(i)).Grow(Connection, b.Capacity()/anonymousCallerShare); err != nil {
			t.Fatal(err)
		}
	}
	wantScope(t, open(b, Anonymous, "another").Grow(Connection, 1), ScopeClass)
	if err := open(b, Known, "another").Grow(Connection, b.Capacity()/callerShare); err != nil {
		t.Errorf("Grow() of a known caller = %v, want nil", err)
	}
}

func TestSystemHasAReserve(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	for i := range 4 {
		if err := open(b, Known, fmt.Sprint(i)).Grow(Connection, b.CallerShare(Known)-10); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.Level(); got != Critical {
		t.Fatalf("Level() = %v, want %v", got, Critical)
	}
	wantScope(t, open(b, Known, "another").Grow(Header, 100), ScopeTotal)
	health := open(b, System, "health")
	if err := health.Grow(Request, 1000); err != nil {
		t.Errorf("Grow() of the system = %v, want nil", err)
	}
	wantScope(t, health.Grow(Request, b.Capacity()), ScopeCaller)
}

// Below Critical a caller that holds less than each of the others is admitted, regardless of their number.
// Shared data counts to the total, but is not that of a caller.
func TestSharedIsNoCaller(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	caller, shared := open(b, Known, "a"), open(b, Shared, "")
	if err := shared.Grow(Subscription, b.Capacity()*8/10); err != nil {
		t.Fatal(err)
	}
	if got, want := b.Total(), b.Capacity()*8/10; got != want {
		t.Errorf("Total() = %d, want %d", got, want)
	}
	if err := caller.Grow(Stream, b.Capacity()/10); err != nil { // less than the equal share of one caller
		t.Errorf("Grow() of the only caller = %v, want nil", err)
	}
	wantScope(t, shared.Grow(Subscription, b.Capacity()), ScopeTotal)
}

func TestEqualShareIsAdmitted(t *testing.T) {
	t.Parallel()
	for _, callers := range []int{5, 50, 1000} {
		b := unobserved(Options{})
		holders := make([]*Reservation, callers)
		for i := range holders {
			holders[i] = open(b, Known, fmt.Sprint(i))
		}
		for grew := true; grew; { // each fills its share
			grew = false
			for _, r := range holders {
				grew = r.Grow(Request, b.Capacity()/20000) == nil || grew
			}
		}
		if got, least := b.Level(), Elevated; got < least {
			t.Errorf("%d callers: got the level %v, want at least %v", callers, got, least)
		}
		small := open(b, Known, "small")
		n := b.equalShare() / 4
		for _, kind := range []Kind{Connection, Request, Stream, Message} {
			if err := small.Grow(kind, n); err != nil {
				t.Errorf("%d callers, level %v: Grow(%v, %d) = %v, want nil", callers, b.Level(), kind, n, err)
			}
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	var changes []Level
	b := unobserved(Options{Changed: func(_, to Level) { changes = append(changes, to) }})
	percent := b.Capacity() / 100
	var holders []*Reservation
	fill := func(to int64) {
		for i := 0; b.Total() < to*percent; i++ {
			r := open(b, Known, fmt.Sprint(i))
			if err := r.Grow(Header, min(b.CallerShare(Known)/2, to*percent-b.Total())); err == nil {
				holders = append(holders, r)
			}
		}
	}
	// The prober holds more than an equal share.
	other, probe := open(b, Known, "probe"), open(b, Known, "probe")
	if err := other.Grow(Header, 20*percent); err != nil {
		t.Fatal(err)
	}
	holders = append(holders, other)
	admits := func(kind Kind, n int64) bool {
		err := probe.Grow(kind, n)
		probe.Shrink(kind, n)
		return err == nil
	}
	for _, step := range []struct {
		filled                                      int64
		level                                       Level
		stream, large, small, request, new, written bool
	}{
		{69, Normal, true, true, true, true, true, true},
		{71, Elevated, false, false, true, true, true, true},
		{86, High, false, false, true, false, true, true},
		{96, Critical, false, false, false, false, false, true},
	} {
		fill(step.filled)
		if got := b.Level(); got != step.level {
			t.Errorf("at %d%%: Level() = %v, want %v", step.filled, got, step.level)
		}
		for name, c := range map[string]struct{ got, want bool }{
			"stream":        {admits(Stream, 1), step.stream},
			"large request": {admits(Message, largeBytes+1), step.large},
			"small request": {admits(Message, 1000), step.small},
			"request":       {admits(Request, 1000), step.request},
			"connection":    {admits(Connection, 1000), step.new},
			"write":         {admits(Write, 1000), step.written},
		} {
			if c.got != c.want {
				t.Errorf("at %d%%: a %s is admitted: %v, want %v", step.filled, name, c.got, c.want)
			}
		}
	}
	for _, r := range holders {
		r.Release()
	}
	if want := []Level{Elevated, High, Critical}; !slices.Equal(changes[:3], want) || b.Level() != Normal {
		t.Errorf("levels went %v, then to %v; want %v, then to %v", changes, b.Level(), want, Normal)
	}
}

// Without hysteresis each reservation near a threshold would log a change.
func TestLevelHasHysteresis(t *testing.T) {
	t.Parallel()
	changes := 0
	b := unobserved(Options{Changed: func(Level, Level) { changes++ }})
	for i := range 3 {
		if err := open(b, Known, fmt.Sprint(i)).Grow(Header, b.Capacity()*23/100); err != nil {
			t.Fatal(err)
		}
	}
	r := open(b, Known, "flapping")
	for range 100 {
		if err := r.Grow(Header, b.Capacity()*2/100); err != nil {
			t.Fatal(err)
		}
		r.Shrink(Header, b.Capacity()*2/100)
	}
	if changes != 1 {
		t.Errorf("the level changed %d times, want 1", changes)
	}
}

func TestMoveTransfersAllKinds(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	r := open(b, Anonymous, "address")
	if err := errors.Join(r.Grow(Connection, 100), r.Grow(Header, 10)); err != nil {
		t.Fatal(err)
	}
	if err := r.Move(Known, "principal"); err != nil {
		t.Fatal(err)
	}
	if got := b.pools[Anonymous].held.Load(); got != 0 {
		t.Errorf("anonymous callers hold %d bytes, want 0", got)
	}
	full := open(b, Known, "full")
	if err := full.Grow(Connection, b.CallerShare(Known)-50); err != nil {
		t.Fatal(err)
	}
	wantScope(t, r.Move(Known, "full"), ScopeCaller)
	if got := b.Total(); got != 110+b.CallerShare(Known)-50 {
		t.Errorf("Total() after a rejected Move = %d, want %d", got, 110+b.CallerShare(Known)-50)
	}
	if r.Release(); r.Sum() != 0 || b.accounts[accountKey{Known, "principal"}] != nil {
		t.Errorf("after Release: Sum() = %d, account %v; want none", r.Sum(), b.accounts)
	}
}

func TestParentSumsItsChildren(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	conn := open(b, Known, "a")
	var request Reservation
	request.Open(b, conn, Known, "b")
	if err := errors.Join(conn.Grow(Connection, 100), request.Grow(Body, 10), request.Grow(Message, 5)); err != nil {
		t.Fatal(err)
	}
	request.Shrink(Body, 4)
	if got := conn.Sum(); got != 111 {
		t.Errorf("Sum() = %d, want 111", got)
	}
	if request.Release(); conn.Sum() != 100 {
		t.Errorf("Sum() after Release of the child = %d, want 100", conn.Sum())
	}
}

func TestNothingIsReservedAfterRelease(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	r := open(b, Known, "a")
	if err := r.Grow(Body, 10); err != nil {
		t.Fatal(err)
	}
	r.Shrink(Body, 1000) // more than is reserved
	r.Release()
	r.Release()
	if err := r.Grow(Body, 1); err == nil || b.Total() != 0 || len(b.accounts) != 0 {
		t.Errorf("Grow() after Release = %v with %d bytes in %d accounts, want an error and none", err, b.Total(), len(b.accounts))
	}
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	var r Reservation
	r.Open(nil, nil, Known, "a")
	for _, r := range []*Reservation{nil, {}, &r} {
		if err := errors.Join(r.Grow(Body, 1<<60), r.Move(Known, "b")); err != nil || r.Sum() != 0 || r.Budget() != nil {
			t.Errorf("got %v, Sum() = %d, want no limit", err, r.Sum())
		}
		r.Shrink(Body, 1)
		r.Release()
	}
	var b *Budget
	b.Observe()
	if b.Level() != Normal || b.Total() != 0 || b.Reserved(Body) != 0 || b.Capacity() != 0 || b.Rejected(ScopeTotal) != 0 {
		t.Error("a nil Budget reports something")
	}
}

// Under concurrent Grow, Move and Release the ledger stays within its limits and ends empty.
func TestLedgerBalances(t *testing.T) {
	t.Parallel()
	b := unobserved(Options{})
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := range 2000 {
				r := open(b, Class(i%2), fmt.Sprint(i%5))
				for kind := range kinds {
					_ = r.Grow(kind, int64(w+1)*b.Capacity()/1000)
				}
				_ = r.Move(Known, fmt.Sprint(i%3))
				r.Shrink(Body, int64(i))
				if total := b.total.Load(); total < 0 || total > b.Capacity()+8*8*int64(kinds)*b.Capacity()/1000 {
					t.Errorf("reserved %d of %d bytes", total, b.Capacity())
				}
				r.Release()
			}
		})
	}
	workers.Wait()
	for _, kind := range Kinds() {
		if got := b.Reserved(kind); got != 0 {
			t.Errorf("Reserved(%v) = %d, want 0", kind, got)
		}
	}
	if b.Total() != 0 || len(b.accounts) != 0 || b.pools[Anonymous].held.Load() != 0 || b.pools[Known].held.Load() != 0 {
		t.Errorf("the ledger ends with %d bytes in %d accounts, want none", b.Total(), len(b.accounts))
	}
}

// BenchmarkSmallCall has the operations of one small call: open, reserve three kinds, move to the
// principal, release.
func BenchmarkSmallCall(b *testing.B) {
	budget := unobserved(Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			var r Reservation
			r.Open(budget, nil, Anonymous, "192.0.2.1")
			_ = r.Grow(Request, 20<<10)
			_ = r.Grow(Header, 500)
			_ = r.Move(Known, "subject ada")
			_ = r.Grow(Message, 300)
			r.Shrink(Message, 300)
			r.Release()
		}
	})
}
