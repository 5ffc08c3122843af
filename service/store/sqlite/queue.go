package sqlite

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/user"
)

const (
	// queueBytes and queueLength limit the waiting batches.
	queueBytes  = 32 << 20
	queueLength = 1024
	// callerBytes limits the waiting batches of one caller, so that it cannot fill the queue.
	callerBytes = queueBytes / 2
	// stallTimeout is how long a group may take before the writer counts as stalled.
	stallTimeout = 3 * time.Second
)

// writeQueue is the bounded queue of the writer, which serves callers round-robin.
type writeQueue struct {
	mu     sync.Mutex
	items  fairQueue[*item]
	shares map[string]*callerShare // callers with queued or blocked batches
	closed bool

	capacity *semaphore.Weighted // of batches, in bytes
	wake     chan struct{}       // capacity 1; signals new items and close
}

// callerShare is the part of the queue that a caller may use.
type callerShare struct {
	*semaphore.Weighted

	batches int // queued or blocked
}

func newWriteQueue() *writeQueue {
	return &writeQueue{
		shares: make(map[string]*callerShare), capacity: semaphore.NewWeighted(queueBytes), wake: make(chan struct{}, 1),
	}
}

// push enqueues an item. For a batch, acquire must have succeeded.
func (q *writeQueue) push(it *item) {
	q.mu.Lock()
	q.items.push(it.caller, it)
	q.mu.Unlock()
	q.signal()
}

// putBack enqueues an item as the next one of its caller. Other callers are served first.
func (q *writeQueue) putBack(it *item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items.insert(it.caller, 0, it)
}

func (q *writeQueue) remove(it *item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items.remove(it.caller, it)
}

// pop removes the next item, and reports whether other callers are waiting.
func (q *writeQueue) pop() (it *item, others bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it, ok := q.items.pop()
	if !ok {
		return nil, false
	}
	others = len(q.items.turns) > 1 || len(q.items.turns) == 1 && q.items.turns[0].caller != it.caller
	return it, others
}

// callers returns the number of callers with items.
func (q *writeQueue) callers() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items.turns)
}

// wait blocks until the queue is not empty. It returns false when it is closed and empty.
func (q *writeQueue) wait() bool {
	for {
		q.mu.Lock()
		waiting, closed := len(q.items.turns) > 0, q.closed
		q.mu.Unlock()
		if waiting || closed {
			return waiting
		}
		<-q.wake
	}
}

// next returns the item that pop would, nil where there is none.
func (q *writeQueue) next() *item {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items.turns) == 0 {
		return nil
	}
	return q.items.turns[0].items[0]
}

func (q *writeQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *writeQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// tryAcquire is acquire without blocking.
func (q *writeQueue) tryAcquire(caller string, weight int64) bool {
	share := q.share(caller)
	if share.TryAcquire(weight) {
		if q.capacity.TryAcquire(weight) {
			return true
		}
		share.Release(weight)
	}
	q.leave(caller)
	return false
}

// acquire blocks until the caller's share and the queue have capacity for weight bytes.
func (q *writeQueue) acquire(ctx context.Context, caller string, weight int64) error {
	share := q.share(caller)
	if err := share.Acquire(ctx, weight); err != nil {
		q.leave(caller)
		return err
	}
	if err := q.capacity.Acquire(ctx, weight); err != nil {
		share.Release(weight)
		q.leave(caller)
		return err
	}
	return nil
}

func (q *writeQueue) share(caller string) *callerShare {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := q.shares[caller]
	if share == nil {
		share = &callerShare{Weighted: semaphore.NewWeighted(callerBytes)}
		q.shares[caller] = share
	}
	share.batches++
	return share
}

// release releases the capacity of a batch.
func (q *writeQueue) release(caller string, weight int64) {
	q.capacity.Release(weight)
	q.leave(caller).Release(weight)
}

func (q *writeQueue) leave(caller string) *callerShare {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := q.shares[caller]
	if share.batches--; share.batches == 0 {
		delete(q.shares, caller)
	}
	return share
}

// admit blocks until the queue has capacity for a batch (backpressure). While the writer is stalled
// it fails with OVERLOADED at once, also for blocked callers, since they hold memory and would only
// time out.
func (s *Store) admit(it *item) error {
	moving := *s.stalls.moving.Load()
	if moving.Err() != nil {
		return user.NewOverloadedError()
	}
	if s.queue.tryAcquire(it.caller, it.weight) {
		return nil
	}
	slot := fair.FromContext(it.ctx)
	defer slot.Resume(slot.Release())
	waiting, cancel := context.WithCancelCause(it.ctx)
	defer cancel(nil)
	//nolint:contextcheck,nolintlint // the writer's context does not come from the caller's
	defer context.AfterFunc(moving, func() { cancel(user.NewOverloadedError()) })()
	if s.queue.acquire(waiting, it.caller, it.weight) != nil {
		return context.Cause(waiting)
	}
	return nil
}

// weigh returns the weight of a batch in the queue: at least queueBytes/queueLength, so that at most
// queueLength batches are queued, and at most callerBytes.
func weigh(batch user.Batch) int64 {
	bytes := 0
	for i := range batch.Changes {
		bytes += weighOp(batch.Changes[i].Op)
	}
	return int64(min(max(bytes, queueBytes/queueLength), callerBytes))
}

// weighOp estimates the memory use of an op.
func weighOp(op user.Op) int {
	bytes := 256
	switch op := op.(type) {
	case *user.Create:
		bytes += weighUser(&op.Values) + 8*(len(op.Keys.Username)+len(op.Keys.Email)) // with createTokens
	case *user.Record:
		bytes += weighMap(op.Details)
	case *user.Update:
		bytes += weighUser(&op.Patch.Values)
		for key, value := range op.Patch.Entries {
			bytes += 64 + len(key)
			if value != nil {
				bytes += len(*value)
			}
		}
	}
	return bytes
}

func weighUser(u *user.User) (bytes int) {
	for i := range columns {
		switch f := columns[i]; {
		case f.Text != nil:
			bytes += len(*f.Text(u))
		case f.List != nil:
			for _, element := range *f.List(u) {
				bytes += 16 + len(element)
			}
		case f.Map != nil:
			bytes += weighMap(*f.Map(u))
		}
	}
	return bytes
}

func weighMap(m map[string]string) (bytes int) {
	for key, value := range m {
		bytes += 64 + len(key) + len(value)
	}
	return bytes
}

// stallDetector detects that the writer makes no progress.
type stallDetector struct {
	timeout time.Duration
	moving  atomic.Pointer[context.Context] // canceled while the writer is stalled

	mu     sync.Mutex
	group  int // number of the current group
	cancel context.CancelFunc
}

func newStallDetector() *stallDetector {
	d := &stallDetector{timeout: stallTimeout}
	d.renew()
	return d
}

func (d *stallDetector) renew() {
	moving, cancel := context.WithCancel(context.Background())
	d.moving.Store(&moving)
	d.cancel = cancel
}

// begin records the start of a group. The returned function records its end.
func (d *stallDetector) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.group++
	group := d.group
	timer := time.AfterFunc(d.timeout, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.group == group {
			d.cancel()
		}
	})
	return func() {
		timer.Stop()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.group++
		if (*d.moving.Load()).Err() != nil {
			d.renew()
		}
	}
}
