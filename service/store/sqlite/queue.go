package sqlite

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/yourorg/userservice/service/user"
)

const (
	// queueBytes and queueLength bound the batches that wait.
	queueBytes  = 32 << 20
	queueLength = 1024
	// callerBytes bounds those of one caller, so that it cannot fill the queue.
	callerBytes = queueBytes / 2
	// stuckAfter is how long a group may take before the disk is said to be stuck.
	stuckAfter = 3 * time.Second
)

// writeQueue holds what waits for the writer, and its room. The writer takes one part of the work
// of each caller after the other.
type writeQueue struct {
	mu     sync.Mutex
	items  fairQueue[*item]
	shares map[string]*callerShare // of those that have or want room
	closed bool

	room *semaphore.Weighted // for batches
	wake chan struct{}       // has room for one: there may be items, or the queue is closed
}

// callerShare is the room that one caller may take.
type callerShare struct {
	*semaphore.Weighted

	batches int // that have room or wait for it
}

func newWriteQueue() *writeQueue {
	return &writeQueue{
		shares: make(map[string]*callerShare), room: semaphore.NewWeighted(queueBytes), wake: make(chan struct{}, 1),
	}
}

// push adds an item for which there is room.
func (q *writeQueue) push(it *item) {
	q.mu.Lock()
	q.items.push(it.caller, it)
	q.mu.Unlock()
	q.signal()
}

// putBack makes an item the next one of its caller, whose next turn comes after one of every other
// caller.
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

// pop takes the next item, and reports whether other callers wait, too.
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

// wait blocks until there is an item. It returns false when the queue is closed and empty.
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

// tryAcquire is acquire where it need not block.
func (q *writeQueue) tryAcquire(caller string, weight int64) bool {
	share := q.share(caller)
	if share.TryAcquire(weight) {
		if q.room.TryAcquire(weight) {
			return true
		}
		share.Release(weight)
	}
	q.leave(caller)
	return false
}

// acquire blocks until there is room for a batch of the caller's share and of the queue.
func (q *writeQueue) acquire(ctx context.Context, caller string, weight int64) error {
	share := q.share(caller)
	if err := share.Acquire(ctx, weight); err != nil {
		q.leave(caller)
		return err
	}
	if err := q.room.Acquire(ctx, weight); err != nil {
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

// release gives the room of a batch back.
func (q *writeQueue) release(caller string, weight int64) {
	q.room.Release(weight)
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

// makeRoom waits until a batch has room in the queue. A queue that is full while the writer makes
// progress is how fast callers are slowed down to the speed of the disk. While the writer is stuck
// makeRoom fails with NewOverloadedError, also for those that wait: they hold memory, and would only
// reach their deadline.
func (s *Store) makeRoom(it *item) error {
	moving := *s.pace.moving.Load()
	if moving.Err() != nil {
		return user.NewOverloadedError()
	}
	if s.queue.tryAcquire(it.caller, it.weight) {
		return nil
	}
	waiting, cancel := context.WithCancelCause(it.ctx)
	defer cancel(nil)
	//nolint:contextcheck,nolintlint // the writer's context does not come from the caller's
	defer context.AfterFunc(moving, func() { cancel(user.NewOverloadedError()) })()
	if s.queue.acquire(waiting, it.caller, it.weight) != nil {
		return context.Cause(waiting)
	}
	return nil
}

// weigh returns what a batch counts for in the queue. None counts for less than its
// share, so that there are never more than queueLength, nor for more than a caller may have.
func weigh(batch user.Batch) int64 {
	bytes := 0
	for i := range batch.Changes {
		bytes += weighOp(batch.Changes[i].Op)
	}
	return int64(min(max(bytes, queueBytes/queueLength), callerBytes))
}

// weighOp estimates the memory of what callers may make large.
func weighOp(op user.Op) int {
	bytes := 256
	tags, metadata := []string(nil), map[string]string(nil)
	switch op := op.(type) {
	case *user.Create:
		tags, metadata = op.Tags, op.Metadata
	case *user.Record:
		metadata = op.Details
	case *user.Update:
		if op.Patch.Tags != nil {
			tags = *op.Patch.Tags
		}
		if op.Patch.Metadata != nil {
			metadata = *op.Patch.Metadata
		}
		for key, value := range op.Patch.Entries {
			bytes += 64 + len(key)
			if value != nil {
				bytes += len(*value)
			}
		}
	}
	for _, tag := range tags {
		bytes += 16 + len(tag)
	}
	for key, value := range metadata {
		bytes += 64 + len(key) + len(value)
	}
	return bytes
}

// pace knows whether the writer gets on.
type pace struct {
	patience time.Duration
	moving   atomic.Pointer[context.Context] // ends when a group takes too long, and is renewed behind that

	mu   sync.Mutex
	turn int // counts the groups
	stop context.CancelFunc
}

func newPace() *pace {
	p := &pace{patience: stuckAfter}
	p.renew()
	return p
}

func (p *pace) renew() {
	moving, stop := context.WithCancel(context.Background()) // it is the writer's, no caller's
	p.moving.Store(&moving)
	p.stop = stop
}

// begin says that a group is taken up. The returned function says that it has ended.
func (p *pace) begin() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	turn := p.turn
	timer := time.AfterFunc(p.patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.turn == turn {
			p.stop()
		}
	})
	return func() {
		timer.Stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.turn++
		if (*p.moving.Load()).Err() != nil {
			p.renew()
		}
	}
}
