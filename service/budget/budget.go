package budget

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// capacityPercent is the part of the limit that can be reserved. The rest is for garbage,
	// stacks, the runtime and the store.
	capacityPercent = 60
	// runtimePercent is the limit of the Go runtime, as a part of the limit. The page caches of SQLite, up to
	// 70 MiB, are not in it.
	runtimePercent = 84

	callerShare          = 4  // one caller: a quarter of the capacity
	anonymousShare       = 4  // all callers without credentials: a quarter
	anonymousCallerShare = 8  // one of them: an eighth
	pendingShare         = 8  // requests whose credentials are not verified: an eighth
	pendingCallerShare   = 16 // those of one address: a sixteenth
	systemShare          = 32 // the reserve for health checks, beside the capacity
	systemLeast          = 1 << 20
)

// Options are the parameters of a Budget.
type Options struct {
	// Limit is the memory limit of the process in bytes. It must be positive.
	Limit int64
	// Changed, if set, is called after a change of the level, on the goroutine that caused it. It
	// must not reserve memory.
	Changed func(from, to Level)
	// InUse returns the live memory, and the memory obtained from the system including garbage.
	// nil: those of the process.
	InUse func() (live, held int64)
}

// Budget is a ledger of reserved bytes. It is safe for concurrent use.
type Budget struct {
	opts     Options
	capacity int64
	pools    [classes]pool
	total    atomic.Int64 // without System
	kinds    [kinds]atomic.Int64
	rejected [len(scopes)]atomic.Int64
	level    atomic.Int32
	callers  atomic.Int64 // number of accounts of callers
	observer

	mu       sync.Mutex // guards changes of level and accounts
	accounts map[accountKey]*account
}

// pool is the part of the budget for a class of callers.
type pool struct {
	held         atomic.Int64
	limit, share int64 // of all callers of the class, and of one
}

type accountKey struct {
	class Class
	name  string
}

// account has the reserved bytes of one caller. It exists while a reservation refers to it.
type account struct {
	key  accountKey
	pool *pool
	held atomic.Int64
	refs int // guarded by Budget.mu

	writes atomic.Int64          // those of the kind Write
	queue  atomic.Pointer[queue] // of the holders that wait; nil before the first one
}

// New returns a budget.
func New(opts Options) *Budget {
	b := &Budget{opts: opts, capacity: opts.Limit / 100 * capacityPercent, accounts: make(map[accountKey]*account)}
	set := func(class Class, limit, share int64) { b.pools[class].limit, b.pools[class].share = limit, share }
	set(Anonymous, b.capacity/anonymousShare, b.capacity/anonymousCallerShare)
	set(Pending, b.capacity/pendingShare, b.capacity/pendingCallerShare)
	set(Known, math.MaxInt64, b.capacity/callerShare) // bounded by the total
	set(Shared, math.MaxInt64, math.MaxInt64)
	system := max(b.capacity/systemShare, systemLeast)
	set(System, system, system/callerShare)
	b.init(time.Now(), opts.InUse)
	return b
}

// Capacity returns the number of bytes that can be reserved, 0 for no limit.
func (b *Budget) Capacity() int64 {
	if b == nil {
		return 0
	}
	return b.capacity
}

// CallerShare returns the number of bytes that one caller of the class can reserve, 0 for no limit.
func (b *Budget) CallerShare(class Class) int64 {
	if b == nil {
		return 0
	}
	return b.pools[class].share
}

// RuntimeLimit returns the limit for debug.SetMemoryLimit.
func (b *Budget) RuntimeLimit() int64 { return b.opts.Limit / 100 * runtimePercent }

// Reserved returns the number of reserved bytes of the kind.
func (b *Budget) Reserved(kind Kind) int64 {
	if b == nil {
		return 0
	}
	return b.kinds[kind].Load()
}

// Total returns the number of reserved bytes, including those of health checks.
func (b *Budget) Total() int64 {
	if b == nil {
		return 0
	}
	return b.total.Load() + b.pools[System].held.Load()
}

// account returns the account of a caller with one more reference. dropRef removes it.
func (b *Budget) account(class Class, name string) *account {
	key := accountKey{class, name}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[key]
	if a == nil {
		a = &account{key: key, pool: &b.pools[class]}
		b.accounts[key] = a
		if class.ofCallers() {
			b.callers.Add(1)
		}
	}
	a.refs++
	return a
}

func (b *Budget) dropRef(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.refs--; a.refs == 0 {
		delete(b.accounts, a.key)
		if a.key.class.ofCallers() {
			b.callers.Add(-1)
		}
	}
}

// reserve reserves n bytes for the account.
func (b *Budget) reserve(a *account, n int64) *Error {
	if a.held.Add(n) > a.pool.share {
		a.held.Add(-n)
		return errCaller
	}
	if a.pool.held.Add(n) > a.pool.limit {
		a.held.Add(-n)
		a.pool.held.Add(-n)
		return errClass
	}
	if a.key.class == System {
		return nil
	}
	if b.total.Add(n) > b.capacity {
		b.release(a, n)
		return errTotal
	}
	b.update()
	return nil
}

// release releases n bytes of the account.
func (b *Budget) release(a *account, n int64) {
	a.held.Add(-n)
	a.pool.held.Add(-n)
	if a.key.class != System {
		b.total.Add(-n)
		b.update()
	}
	a.wake()
}
