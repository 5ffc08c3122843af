package budget

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/yourorg/userservice/service/reqinfo"
)

// Reservation has the reserved bytes of one holder, such as a connection or a request. It belongs to the
// account of one caller. It is safe for concurrent use. A zero Reservation has no limit until Open.
type Reservation struct {
	budget *Budget
	parent *Reservation
	nested atomic.Int64 // bytes of the reservations whose parent this is

	mu      sync.Mutex
	account *account // nil: released
	total   int64
	ahead   int64 // part of held[Write], see Ahead
	grown   int64 // all bytes that Grow has reserved
	held    [kinds]int64
}

// Open assigns the reservation to the account of a caller. Sum of the parent, which must outlive the
// reservation and may be nil, includes it. Open must be called once, before concurrent use.
func (r *Reservation) Open(b *Budget, parent *Reservation, class Class, caller string) {
	if b == nil {
		return
	}
	r.budget, r.parent = b, parent
	r.account = b.account(class, caller)
}

// Grow reserves n more bytes. On failure, which is an *Error, nothing is reserved.
func (r *Reservation) Grow(kind Kind, n int64) error {
	if r == nil || r.budget == nil || n <= 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.account == nil:
		return errTotal // nothing would release it after Release
	case r.takeAhead(kind, n):
		r.grown += n
		return nil
	}
	r.budget.beforeGrow(kind, n)
	if r.account.key.class != System && r.budget.closed(r.account, kind, r.total, n) {
		return r.budget.countRejected(errLevel)
	}
	if err := r.budget.reserve(r.account, n); err != nil {
		return r.budget.countRejected(err)
	}
	r.add(kind, n)
	r.grown += n
	return nil
}

// Shrink releases n bytes of the kind, or all if fewer are reserved.
func (r *Reservation) Shrink(kind Kind, n int64) {
	if r == nil || r.budget == nil || n <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = min(n, r.held[kind]); n == 0 || r.account == nil {
		return
	}
	r.budget.release(r.account, n)
	r.add(kind, -n)
}

// add adds n bytes, which may be negative, to the totals. The caller holds the lock.
func (r *Reservation) add(kind Kind, n int64) {
	r.held[kind] += n
	r.total += n
	r.budget.kinds[kind].Add(n)
	if kind == Write {
		r.account.writes.Add(n)
	}
	if r.parent != nil {
		r.parent.nested.Add(n)
	}
}

// Move moves the reservation to the account of another caller. On failure it is unchanged.
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
	// Release first: counted twice, the bytes could exceed the limit.
	r.budget.release(old, r.total)
	if err := r.budget.reserve(to, r.total); err != nil {
		// Others may have reserved the bytes, which are still in use.
		r.budget.forceReserve(old, r.total)
		r.budget.dropRef(to)
		return r.budget.countRejected(err)
	}
	old.writes.Add(-r.held[Write])
	to.writes.Add(r.held[Write])
	r.account = to
	r.budget.dropRef(old)
	return nil
}

// forceReserve reserves n bytes for the account beyond its limits.
func (b *Budget) forceReserve(a *account, n int64) {
	a.held.Add(n)
	a.pool.held.Add(n)
	if a.key.class != System {
		b.total.Add(n)
		b.update()
	}
}

// Release releases all bytes and closes the reservation. It is idempotent.
func (r *Reservation) Release() {
	if r == nil || r.budget == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.account == nil {
		return
	}
	r.budget.release(r.account, r.total)
	for kind, n := range r.held {
		if n > 0 {
			r.add(Kind(kind), -n)
		}
	}
	r.budget.dropRef(r.account)
	r.account, r.ahead = nil, 0
}

// Grown returns the sum of what Grow has reserved, released or not.
func (r *Reservation) Grown() int64 {
	if r == nil || r.budget == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.grown
}

// Held returns the number of reserved bytes of the kind.
func (r *Reservation) Held(kind Kind) int64 {
	if r == nil || r.budget == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[kind]
}

// Sum returns the number of reserved bytes, including those of its children.
func (r *Reservation) Sum() int64 {
	if r == nil || r.budget == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total + r.nested.Load()
}

// Budget returns the budget of the reservation, nil if it has no limit.
func (r *Reservation) Budget() *Budget {
	if r == nil {
		return nil
	}
	return r.budget
}

// NewContext returns a context with the reservation of a request.
func NewContext(ctx context.Context, r *Reservation) context.Context { return reqinfo.With(ctx, r) }

// FromContext returns the reservation of the request, or nil. The server releases it after the handler.
func FromContext(ctx context.Context) *Reservation { return reqinfo.From[*Reservation](ctx) }
