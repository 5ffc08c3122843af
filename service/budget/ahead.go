package budget

import (
	"context"
	"errors"
	"time"
)

const (
	// aheadShare is the part that a caller can reserve ahead of what its other reservations leave: half. The rest is for requests
	// that are being read, whose size is not known before.
	aheadShare = 2
	// aheadMost is the most that one holder reserves ahead, as a part of the share of its caller.
	aheadMost = 8
	// aheadTimeout is how long a holder waits for memory. If nothing was released for aheadRetry, it can have all that is left: others may
	// wait for messages that do not arrive until it reads its own, because they share the window of a connection.
	aheadTimeout = 30 * time.Second
	aheadRetry   = 100 * time.Millisecond
)

// queue has the holders of an account that wait for memory, the oldest first.
type queue struct {
	front    chan struct{} // has an element while a holder waits; the others wait to send one, in order
	released chan struct{} // has an element if memory was released since the front has looked
}

// Ahead reserves memory for what the holder reserves next, until there are at least that many bytes and, if there is memory, most. Grow
// takes them first, so it does not fail, whatever others reserve. Ahead reports whether they are reserved. It fails if the caller has
// reserved so much that a request that is being read could fail, and while other holders of the caller wait in AwaitAhead.
func (r *Reservation) Ahead(least, most int64) bool {
	return r == nil || r.budget == nil || r.tryAhead(least, most, aheadShare, false)
}

// AwaitAhead is Ahead for a holder that waits until others of its caller have released memory, the oldest first. It must have
// released what it can before, because others wait for that. The error is an *Error, or the cause of the end of ctx.
func (r *Reservation) AwaitAhead(ctx context.Context, least, most int64) error {
	if r.Ahead(least, most) {
		return nil
	}
	r.ReleaseAhead() // a part of it is of no use to this holder, but to others
	ctx, cancel := context.WithTimeoutCause(ctx, aheadTimeout, errCaller)
	defer cancel()
	err := r.await(ctx, least, most)
	if refused := new(Error); errors.As(err, &refused) {
		return r.budget.countRejected(refused)
	}
	return err
}

// await waits until the memory is reserved, or ctx ends.
func (r *Reservation) await(ctx context.Context, least, most int64) error {
	q := r.queue()
	if q == nil {
		return errTotal // released
	}
	select {
	case q.front <- struct{}{}:
		defer func() { <-q.front }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	retry := time.NewTimer(aheadRetry)
	defer retry.Stop()
	for part := int64(aheadShare); !r.tryAhead(least, most, part, true); retry.Reset(aheadRetry) {
		select {
		case <-q.released:
			part = aheadShare
		case <-retry.C:
			part = 1
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// ReleaseAhead releases what was reserved ahead.
func (r *Reservation) ReleaseAhead() {
	if r == nil || r.budget == nil {
		return
	}
	r.mu.Lock()
	ahead := r.ahead
	r.ahead = 0
	r.mu.Unlock()
	r.Shrink(Write, ahead)
}

// tryAhead is Ahead, for one part of the memory that is left. front is set for the holder that waits in front.
func (r *Reservation) tryAhead(least, most, part int64, front bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.account
	if a == nil {
		return false // released
	}
	largest := a.pool.share / aheadMost
	least, most = min(least, largest)-r.ahead, min(most, largest)-r.ahead
	if !front && a.isAwaited() {
		return least <= 0
	}
	n := min(most, r.budget.roomAhead(a, part))
	if n <= 0 || n < least {
		return least <= 0
	}
	r.budget.beforeGrow(Write, n)
	if r.budget.reserve(a, n) != nil {
		return least <= 0
	}
	r.add(Write, n)
	r.ahead += n
	return true
}

// takeAhead takes n bytes of the kind from those that were reserved ahead, all or none. The caller holds the lock.
func (r *Reservation) takeAhead(kind Kind, n int64) bool {
	if n > r.ahead {
		return false
	}
	r.ahead -= n
	r.add(Write, -n)
	r.add(kind, n)
	return true
}

// roomAhead returns how much more the holders of the account can reserve ahead, of one part of what its others leave. Under memory pressure a caller has an equal share.
func (b *Budget) roomAhead(a *account, part int64) int64 {
	allowed := a.pool.share
	if b.Level() > Normal {
		allowed = min(allowed, b.equalShare())
	}
	writes := a.writes.Load()
	return (allowed-(a.held.Load()-writes))/part - writes
}

// queue returns the queue of the account, which most accounts do not need.
func (r *Reservation) queue() *queue {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.account
	if a == nil {
		return nil
	}
	if a.queue.Load() == nil {
		a.queue.CompareAndSwap(nil, &queue{front: make(chan struct{}, 1), released: make(chan struct{}, 1)})
	}
	return a.queue.Load()
}

func (a *account) isAwaited() bool {
	q := a.queue.Load()
	return q != nil && len(q.front) > 0
}

// wake wakes the holder that waits in front.
func (a *account) wake() {
	if q := a.queue.Load(); q != nil {
		select {
		case q.released <- struct{}{}:
		default:
		}
	}
}
