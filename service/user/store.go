package user

import (
	"context"
	"time"
)

// Store keeps users and their log. It is safe for use by many goroutines. Times
// that it takes and gives are truncated to microseconds, in UTC.
//
// What every store must promise, each sentence with its test in storetest:
//
// The log. Positions must be 1, 2, 3 … in commit order, without a gap and without
// a repeat, over restarts too. A row must never become visible behind a position
// that a reader has already been given. The time of a row must not be before that
// of the row in front of it, even if the clock goes back. A change and its rows
// must become visible together.
//
// Writes. A result must not be given before its change is durable. A change must
// be decided by its [Op] on the present user, one after the other. A change that
// fails must leave nothing behind, and must not touch the others of its batch or
// of its transaction, unless the batch is atomic. Usernames and e-mail addresses
// must be unique by their keys among all users that are not purged, whatever runs
// at the same time. A [IdempotencyKey] must take effect once within RequestIDLifetime, over
// restarts and within one transaction too, and must give the first success
// again, or NewRequestIDReusedError for another fingerprint; failures and ValidateOnly
// must not be remembered.
//
// Reads. They must see every change whose result was given before they began. What
// they return must belong to the caller alone.
//
// Fairness. A point read (Get, First, and GetMany, Statuses and Log of a few) must not wait for
// reads of many rows, however many are in progress. Callers, as [CallerFromContext] tells them apart, must
// be served in turn, and a read of many rows must give up its turn after a part of it. So the
// parts of a page need not be of one instant: a page of List promises no more than several do, and
// a page of Log ends at the head that was known when it began. The changes of a batch that is not
// atomic may take several transactions: where a later one fails, the results of the earlier ones
// are given, and the failure as the result of each other change.
//
// Failures. Expected ones must be of type *Error. Anything else is an unexpected
// failure, whose text callers never see. After a failed sync to disk a store must
// take no more writes (NewStoreReadOnlyError) while it goes on reading. A write that may
// have been stored must not be given a definite refusal, but NewOutcomeUnknownError.
type Store interface {
	// Head returns the end of the log.
	Head(ctx context.Context) (Head, error)
	// First returns the position of the oldest row kept, 1 for an empty log.
	First(ctx context.Context) (int64, error)
	// Get returns a user, a deleted one too, or NewNotFoundError.
	Get(ctx context.Context, id int64) (*User, error)
	// GetMany returns the users that there are, in the order of the ids; those
	// that there are not are left out.
	GetMany(ctx context.Context, ids []int64) ([]*User, error)
	// Statuses returns the current statuses of the users that exist, deleted ones
	// too, in the order of the ids. Its cost and its result must not grow with the
	// size of the users.
	Statuses(ctx context.Context, ids []int64) ([]CurrentStatus, error)
	// List returns a page of users. Its cost must not grow with the page's
	// depth or the size of the store.
	List(ctx context.Context, query ListQuery) (ListPage, error)
	// Log returns a page of the log; its cost must not grow with the page's depth.
	Log(ctx context.Context, query LogQuery) (LogPage, error)
	// Before returns the position of the last row whose time is before t, 0 if
	// there is none.
	Before(ctx context.Context, t time.Time) (int64, error)

	// Submit hands a batch in and returns at once, or when there is room in the
	// queue. A store that has not got on for seconds refuses it at once with
	// NewOverloadedError; one that is merely busy lets it wait. Batches submitted by one goroutine for
	// one caller take effect in that order. A batch, or what is left of one, whose context has
	// ended before its turn is not carried out.
	Submit(ctx context.Context, batch Batch) *Pending
	// Observe names the one observer of commits, before the first Submit. It is
	// called in commit order, once a commit is durable and visible and before
	// its results are given, and must return quickly.
	Observe(observer func(Commit))

	// DuePurges returns at most limit deleted users whose time to be purged has
	// certainly come, whatever the system clock says.
	DuePurges(ctx context.Context, limit int) ([]int64, error)
	// Redact replaces the details of at most limit rows of a user, and forgets
	// request ids whose remembered answers hold its data; more reports whether it
	// must be called again. It comes before the user's Purge.
	Redact(ctx context.Context, id int64, limit int) (more bool, err error)
	// ExpireRequestIDs drops at most limit request ids past their lifetime and
	// returns how many it dropped.
	ExpireRequestIDs(ctx context.Context, limit int) (int, error)
	// Probe makes a durable write that nobody sees, and says why it could not.
	Probe(ctx context.Context) error
	// Close waits for the batches handed in, and ends the store.
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

// Pending is a batch on its way.
type Pending struct {
	done    chan struct{}
	results []Result
	err     error
}

// NewPending returns a batch on its way and the function that ends it, which is
// to be called once.
func NewPending() (p *Pending, end func([]Result, error)) {
	p = &Pending{done: make(chan struct{})}
	return p, func(results []Result, err error) {
		p.results, p.err = results, err
		close(p.done)
	}
}

// Done is closed when the batch has ended.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns one result a change, or why the whole batch failed. If the context
// ends first its error is returned, and the batch may take effect all the same.
func (p *Pending) Wait(ctx context.Context) ([]Result, error) {
	select {
	case <-p.done:
		return p.results, p.err
	case <-ctx.Done():
		select {
		case <-p.done:
			return p.results, p.err
		default:
			return nil, context.Cause(ctx)
		}
	}
}
