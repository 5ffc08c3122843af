package user

import (
	"context"
	"time"

	"github.com/yourorg/userservice/service/fair"
)

// Store persists users and their log. It is safe for concurrent use. Its times are UTC and
// truncated to microseconds. Package storetest tests each of these requirements.
//
// Log: positions are 1, 2, 3 … in commit order, without gaps or duplicates, across restarts.
// A row never becomes visible at or below a position that a reader has already received. The
// time of a row is not before the time of the previous row, even if the clock goes back. A
// change and its rows become visible together. Pruning removes the oldest rows; positions, users and
// their LastActivityID are unaffected.
//
// Writes: a result is returned after its change is durable. Changes are decided by their
// [Op] on the current user, one at a time. A failed change has no effect and does not affect
// other changes of its batch or transaction, unless the batch is atomic. Usernames and e-mail
// addresses are unique by their keys among all users that are not purged. A change with an
// [IdempotencyKey] is applied once within RequestIDLifetime, across restarts and within one
// transaction; repeats get the stored result of the first success, or
// [NewRequestIDReusedError] if the fingerprint differs. A result with a row that was pruned has
// expired. Failures, ValidateOnly changes and Prepare changes are not stored.
//
// Reads: a read reflects every change whose result was returned before the read started. The
// caller owns the values returned.
//
// Fairness: point reads (Get, and GetMany, Statuses and Log of a few rows) do not wait
// for scans. Callers, identified by [CallerFromContext], are scheduled round-robin, and a scan
// yields after each chunk of rows. The chunks of a List page may therefore be of different
// instants; a Log page ends at the head known when it began. A batch that is not atomic may
// take several transactions: if a later one fails, the results of the earlier ones are
// returned, and the failure is the result of each remaining change.
//
// Failures: expected failures are of type *Error. Any other error is unexpected and its text
// is never sent to clients. After a failed sync to disk the store rejects writes
// ([NewStoreReadOnlyError]) and continues to serve reads. A write that may be durable fails
// with [NewOutcomeUnknownError], never with a definite rejection.
type Store interface {
	// Head returns the end of the log.
	Head(ctx context.Context) (Head, error)
	// First returns the position of the oldest retained row, or of the next row if the log has none.
	// It reads memory only. It is not less than the position of any row missing in an earlier read.
	First(ctx context.Context) (int64, error)
	// Get returns a user, including a deleted one, or a USER_NOT_FOUND error.
	Get(ctx context.Context, id int64) (*User, error)
	// GetMany returns the users that exist, in the order of the ids.
	GetMany(ctx context.Context, ids []int64) ([]*User, error)
	// Statuses returns the current statuses of the users that exist, including deleted
	// ones, in the order of the ids. Its cost is independent of the size of the users.
	Statuses(ctx context.Context, ids []int64) ([]CurrentStatus, error)
	// List returns a page of users. Its cost is independent of the depth of the page and
	// the size of the store.
	List(ctx context.Context, query ListQuery) (ListPage, error)
	// Count returns the number of users on all pages of a list; After, MaxUsers and MaxBytes of the
	// query have no effect. It is exact if at most MaxScanned users are compared, else it may be
	// an estimate, for which up to MaxScanned further users are compared.
	Count(ctx context.Context, query ListQuery) (Count, error)
	// Log returns a page of the log. Its cost is independent of the depth of the page. It fails
	// with a POSITION_OUT_OF_RANGE error if rows after query.After were pruned, also during the
	// read: a page never has a gap.
	Log(ctx context.Context, query LogQuery) (LogPage, error)
	// Before returns the position of the last row before t. It is the one before First if no
	// retained row is before t.
	Before(ctx context.Context, t time.Time) (int64, error)

	// Submit enqueues a batch. It blocks while the queue is full (backpressure), and fails
	// at once with an OVERLOADED error if the writer is stalled. Batches of one goroutine
	// and caller are applied in order. Changes not applied when ctx ends are dropped.
	Submit(ctx context.Context, batch Batch) *Pending
	// Observe registers the single observer of commits, before the first Submit. It is
	// called in commit order, after a commit is durable and visible and before its results
	// are returned. It must return quickly.
	Observe(observer func(Commit))

	// DuePurges returns up to limit deleted users whose purge time is before the lower
	// bound of the current time.
	DuePurges(ctx context.Context, limit int) ([]int64, error)
	// Redact redacts the details of up to limit rows of a user and deletes stored results
	// of idempotent requests that contain its data. more reports whether rows are left. It
	// is a step of ApplyPurge. No redacted or deleted data must be left in the store.
	Redact(ctx context.Context, id int64, limit int) (more bool, err error)
	// ExpireRequestIDs deletes up to limit expired request ids and returns their number.
	ExpireRequestIDs(ctx context.Context, limit int) (int, error)
	// Prune deletes up to limit of the oldest rows of the log and returns their number. A row is
	// deleted if it is at least age old by the lower bound of the current time. No deleted data
	// must be left in the store.
	Prune(ctx context.Context, age time.Duration, limit int) (int, error)
	// Probe makes a durable write without visible effect and returns its error.
	Probe(ctx context.Context) error
	// Close waits for the submitted batches and closes the store.
	Close() error
}

// Apply submits a batch and waits for its results.
func Apply(ctx context.Context, store Store, batch Batch) ([]Result, error) {
	return store.Submit(ctx, batch).Wait(ctx)
}

// ApplyOne submits one change and waits for its result.
func ApplyOne(ctx context.Context, store Store, change Change) (Result, error) {
	results, err := Apply(ctx, store, Batch{Changes: []Change{change}})
	if err != nil {
		return Result{}, err
	}
	return results[0], results[0].Err
}

// Pending is a submitted batch.
type Pending struct {
	done    chan struct{}
	results []Result
	err     error
}

// NewPending returns a pending batch and the function that completes it, to be called once.
func NewPending() (p *Pending, complete func([]Result, error)) {
	p = &Pending{done: make(chan struct{})}
	return p, func(results []Result, err error) {
		p.results, p.err = results, err
		close(p.done)
	}
}

// Done returns a channel that is closed when the batch is complete.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns one result per change, or the error of the batch. If ctx ends first it returns
// its cause, and the batch may still be applied.
func (p *Pending) Wait(ctx context.Context) ([]Result, error) {
	slot := fair.FromContext(ctx)
	held := slot.Release()
	select {
	case <-p.done:
	case <-ctx.Done():
		select {
		case <-p.done:
		default:
			return nil, context.Cause(ctx)
		}
	}
	slot.Resume(held)
	return p.results, p.err
}
