package budget

import (
	"context"
	"sync"
	"sync/atomic"
)

// Reservation is what one holder, such as a connection or a request, has reserved. It
// belongs to the account of one caller. It is safe for use by many goroutines.
//
// A zero Reservation has no limit until Open.
type Reservation struct {
	budget *Budget
	parent *Reservation
	nested atomic.Int64 // bytes of the reservations whose parent this is

	mu      sync.Mutex
	account *account // nil: released
	total   int64
	held    [kinds]int64
}

// Open makes the reservation draw on the account of a caller. With a parent, which must
// outlive the reservation, Sum of the parent includes it. Open is called once, before
// the reservation is used by several goroutines.
func (r *Reservation) Open(b *Budget, parent *Reservation, class Class, caller string) {
	if b == nil {
		return
	}
	r.budget, r.parent = b, parent
	r.account = b.account(class, caller)
}

// Grow reserves n further bytes. If it fails nothing is reserved, and the error is an *Error.
func (r *Reservation) Grow(kind Kind, n int64) error {
	if r == nil || r.budget == nil || n <= 0 {
		return nil
	}
	r.budget.expect(kind, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account == nil {
		return errTotal // what is reserved after Release would never be returned
	}
	if r.account.key.class != System && r.budget.closed(r.account, kind, r.total, n) {
		return r.budget.refuse(errLevel)
	}
	if err := r.budget.take(r.account, n); err != nil {
		return r.budget.refuse(err)
	}
	r.add(kind, n)
	return nil
}

// Shrink returns n bytes of the kind, at most what is reserved of it.
func (r *Reservation) Shrink(kind Kind, n int64) {
	if r == nil || r.budget == nil || n <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = min(n, r.held[kind]); n == 0 || r.account == nil {
		return
	}
	r.budget.give(r.account, n)
	r.add(kind, -n)
}

// add notes bytes that were taken or given. It is called with the lock.
func (r *Reservation) add(kind Kind, n int64) {
	r.held[kind] += n
	r.total += n
	r.budget.kinds[kind].Add(n)
	if r.parent != nil {
		r.parent.nested.Add(n)
	}
}

// Move makes the reservation belong to another caller, with all that is reserved. If it
// fails the reservation stays as it is.
func (r *Reservation) Move(class Class, caller string) error {
	if r == nil || r.budget == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.account
	if old == nil || old.key.class == class && old.key.name == caller {
		return nil
	}
	to := r.budget.account(class, caller)
	// It is returned first: one that counts twice meanwhile would be refused near the limit.
	r.budget.give(old, r.total)
	if err := r.budget.take(to, r.total); err != nil {
		// Another may have taken the bytes; they are in use all the same.
		r.budget.force(old, r.total)
		r.budget.leave(to)
		return r.budget.refuse(err)
	}
	r.account = to
	r.budget.leave(old)
	return nil
}

// force reserves n bytes for the account, whatever its bounds.
func (b *Budget) force(a *account, n int64) {
	a.held.Add(n)
	a.pool.held.Add(n)
	if a.key.class != System {
		b.total.Add(n)
		b.update()
	}
}

// Release returns everything. No byte can be reserved after it. It may be called twice.
func (r *Reservation) Release() {
	if r == nil || r.budget == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account == nil {
		return
	}
	r.budget.give(r.account, r.total)
	for kind, n := range r.held {
		if n > 0 {
			r.add(Kind(kind), -n)
		}
	}
	r.budget.leave(r.account)
	r.account = nil
}

// Held returns how many bytes of the kind are reserved.
func (r *Reservation) Held(kind Kind) int64 {
	if r == nil || r.budget == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[kind]
}

// Sum returns how many bytes are reserved, with those of the reservations whose parent it is.
func (r *Reservation) Sum() int64 {
	if r == nil || r.budget == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total + r.nested.Load()
}

// Budget returns the budget that the reservation draws on, nil where there is none.
func (r *Reservation) Budget() *Budget {
	if r == nil {
		return nil
	}
	return r.budget
}

type contextKey struct{}

// NewContext returns a context that carries the reservation of a request.
func NewContext(ctx context.Context, r *Reservation) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

// FromContext returns the reservation of the request, nil where there is none. The
// server releases it when the handler has returned.
func FromContext(ctx context.Context) *Reservation {
	r, _ := ctx.Value(contextKey{}).(*Reservation)
	return r
}
