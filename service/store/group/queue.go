package group

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/user"
)

const (
	// QueueBytes limits the size of the waiting batches.
	QueueBytes = 32 << 20
	// QueueLength limits the number of waiting batches.
	QueueLength = 1024
	// CallerBytes limits the waiting batches of one caller, so that it cannot fill the queue.
	CallerBytes = QueueBytes / 2

	// MaxUnits limits the work of one transaction, in units. A change is at least one unit.
	MaxUnits = 2000
	// TurnUnits limits the work of a caller in one transaction until no other caller has written for
	// aloneAfter: others may come while a large transaction is applied or committed.
	TurnUnits  = 128
	aloneAfter = time.Second
)

// gatherTime bounds how long a group waits for callers, besides half of the duration of the group before.
const gatherTime = 5 * time.Millisecond

// Options configures a Queue. The fields may be zero.
type Options struct {
	TurnUnits, MaxUnits int           // override the constants
	StallTimeout        time.Duration // after which a group is stalled
	// Prepare prepares a change on the goroutine of the caller. Default: decide.Prepare.
	Prepare func(*user.Change) decide.Prepared
	// Stopped returns the error of all batches after writes have stopped, else nil.
	Stopped func() error
}

// Queue is a bounded queue of batches and jobs, which serves callers round-robin. Jobs get the transaction, of type T.
type Queue[T any] struct {
	opts     Options
	stalls   *stallDetector
	capacity *semaphore.Weighted // of batches, in bytes
	wake     chan struct{}       // capacity 1; signals that there are need items, and close
	finished chan struct{}       // closed when Run returns

	// closing protects closed. Submit holds the read lock while it enqueues.
	closing sync.RWMutex
	closed  bool

	mu     sync.Mutex
	items  Fair[*Item[T]]
	need   int                     // number of items that wakes the writer
	shares map[string]*callerShare // callers with queued or blocked batches
	ended  bool

	inFlight int // batches queued or in the group when it was completed
}

// callerShare is the part of the queue that a caller may use.
type callerShare struct {
	*semaphore.Weighted

	batches int // queued or blocked
}

// NewQueue returns an empty queue.
func NewQueue[T any](opts Options) *Queue[T] {
	if opts.TurnUnits == 0 {
		opts.TurnUnits = TurnUnits
	}
	if opts.MaxUnits == 0 {
		opts.MaxUnits = MaxUnits
	}
	if opts.StallTimeout == 0 {
		opts.StallTimeout = stallTimeout
	}
	if opts.Prepare == nil {
		opts.Prepare = decide.Prepare
	}
	return &Queue[T]{
		opts: opts, stalls: newStallDetector(opts.StallTimeout), capacity: semaphore.NewWeighted(QueueBytes),
		wake: make(chan struct{}, 1), finished: make(chan struct{}), shares: make(map[string]*callerShare),
	}
}

// Submit implements user.Store. It blocks while the queue is full, and fails while the writer is stalled.
func (q *Queue[T]) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	pending, end := user.NewPending()
	it := &Item[T]{ctx: ctx, Caller: user.CallerFromContext(ctx), Batch: batch, end: end, weight: weigh(batch)}
	if err := q.enqueue(it); err != nil {
		end(nil, err)
	}
	return pending
}

// Do runs a job in the next transaction and waits for it.
func (q *Queue[T]) Do(ctx context.Context, job func(T) error) error {
	pending, end := user.NewPending()
	if err := q.enqueue(&Item[T]{ctx: ctx, Job: job, end: end}); err != nil {
		return err
	}
	_, err := pending.Wait(ctx)
	return err
}

// Go runs a job in the next transaction, then calls end. It returns an error if the queue is closed.
func (q *Queue[T]) Go(job func(T) error, end func(error)) error {
	return q.enqueue(&Item[T]{ctx: context.Background(), Job: job, end: func(_ []user.Result, err error) { end(err) }})
}

func (q *Queue[T]) enqueue(it *Item[T]) error {
	if err := it.ctx.Err(); err != nil {
		return context.Cause(it.ctx)
	}
	q.closing.RLock()
	defer q.closing.RUnlock()
	if q.closed {
		return user.NewStoreUnavailableError()
	}
	if it.Job == nil {
		if err := q.admit(it); err != nil {
			return err
		}
		it.prepare(q.opts.Prepare)
	}
	q.mu.Lock()
	q.items.Push(it.Caller, it)
	enough := q.items.Len() >= q.need
	q.mu.Unlock()
	if enough {
		q.signal()
	}
	return nil
}

// Run calls apply for each group until the queue is closed and empty. apply takes the parts of the group with Take, and
// then calls Complete or Fail.
func (q *Queue[T]) Run(apply func(*Group[T])) {
	defer close(q.finished)
	g := &Group[T]{queue: q, units: make(map[string]int)}
	for duration := time.Duration(0); q.wait(); g.reset() {
		q.gather(min(duration/2, gatherTime))
		start := time.Now()
		end := q.stalls.begin()
		apply(g)
		end()
		duration = time.Since(start)
	}
}

// gather waits until as many items are queued as batches were in flight when the last group was completed: callers that
// got their results then may submit their next batch to this group. Otherwise they would form two groups that alternate,
// with twice the commits.
func (q *Queue[T]) gather(most time.Duration) {
	need := min(q.inFlight, q.opts.TurnUnits)
	if q.has(need) {
		return
	}
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	for !q.has(need) {
		select {
		case <-q.wake:
		case <-timeout.C:
			return
		}
	}
}

// Close rejects further batches, and waits until Run has returned. It returns false if the queue was closed before.
func (q *Queue[T]) Close() bool {
	q.closing.Lock()
	if q.closed {
		q.closing.Unlock()
		return false
	}
	q.closed = true
	q.closing.Unlock()
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.signal()
	<-q.finished
	return true
}

// wait blocks until the queue is not empty. It returns false when it is closed and empty.
func (q *Queue[T]) wait() bool {
	for !q.has(1) {
		<-q.wake
	}
	return q.length() > 0
}

// has reports whether the queue has need items or is closed. If not, the writer is woken when it does.
func (q *Queue[T]) has(need int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.need = need
	return q.items.Len() >= need || q.ended
}

// pop removes the next item, and reports whether other callers are waiting.
func (q *Queue[T]) pop() (it *Item[T], others bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it, ok := q.items.Pop()
	if !ok {
		return nil, false
	}
	return it, !q.items.OnlyOf(it.Caller)
}

// putBack enqueues an item as the next one of its caller. Other callers are served first.
func (q *Queue[T]) putBack(it *Item[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items.Insert(it.Caller, 0, it)
}

func (q *Queue[T]) remove(it *Item[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items.Remove(it.Caller, it)
}

// length returns the number of items.
func (q *Queue[T]) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items.Len()
}

// callers returns the number of callers with items.
func (q *Queue[T]) callers() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items.Callers()
}

func (q *Queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// admit blocks until the queue has capacity for a batch (backpressure). While the writer is stalled
// it fails with OVERLOADED at once, also for blocked callers, since they hold memory and would only
// time out.
func (q *Queue[T]) admit(it *Item[T]) error {
	moving := *q.stalls.moving.Load()
	if moving.Err() != nil {
		return user.NewOverloadedError()
	}
	if q.tryAcquire(it.Caller, it.weight) {
		return nil
	}
	slot := fair.FromContext(it.ctx)
	defer slot.Resume(slot.Release())
	waiting, cancel := context.WithCancelCause(it.ctx)
	defer cancel(nil)
	//nolint:contextcheck,nolintlint // the writer's context does not come from the caller's
	defer context.AfterFunc(moving, func() { cancel(user.NewOverloadedError()) })()
	if q.acquire(waiting, it.Caller, it.weight) != nil {
		return context.Cause(waiting)
	}
	return nil
}

// tryAcquire is acquire without blocking.
func (q *Queue[T]) tryAcquire(caller string, weight int64) bool {
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
func (q *Queue[T]) acquire(ctx context.Context, caller string, weight int64) error {
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

func (q *Queue[T]) share(caller string) *callerShare {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := q.shares[caller]
	if share == nil {
		share = &callerShare{Weighted: semaphore.NewWeighted(CallerBytes)}
		q.shares[caller] = share
	}
	share.batches++
	return share
}

// release releases the capacity of a batch.
func (q *Queue[T]) release(it *Item[T]) {
	if it.Job == nil && it.weight > 0 {
		q.capacity.Release(it.weight)
		q.leave(it.Caller).Release(it.weight)
		it.weight = 0
	}
}

func (q *Queue[T]) leave(caller string) *callerShare {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := q.shares[caller]
	if share.batches--; share.batches == 0 {
		delete(q.shares, caller)
	}
	return share
}
