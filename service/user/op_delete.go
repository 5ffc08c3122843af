package user

import (
	"context"
	"time"
)

// Delete marks a user as deleted, to be purged after Retention.
type Delete struct {
	ID        int64
	Etag      string // expected version; empty: any
	Retention time.Duration
}

// Target returns the id of the user.
func (op *Delete) Target() int64 { return op.ID }

// Decide sets the times of deletion and purge.
func (op *Delete) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if err := requireLive(cur, op.ID); err != nil {
		return Decision{}, err
	}
	if op.Etag != "" && op.Etag != cur.Etag() {
		return Decision{}, newEtagMismatchError(cur)
	}
	next := cur.Clone()
	next.DeletedAt = stamp.LogTime
	next.PurgeAt = Truncate(stamp.Clock.Add(op.Retention))
	return lifecycleChange(cur, next, ActionDeleted, stamp, by), nil
}

// Undelete reverts a deletion until the purge time of the user.
type Undelete struct {
	ID   int64
	Etag string // expected version; empty: any
}

// Target returns the id of the user.
func (op *Undelete) Target() int64 { return op.ID }

// Decide clears the times of deletion and purge. After its purge time a user is not found,
// even if it is not purged yet.
func (op *Undelete) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	switch {
	case cur == nil:
		return Decision{}, NewNotFoundError(op.ID)
	case !cur.Deleted():
		return Decision{}, newNotDeletedError(op.ID)
	case !stamp.Earliest.Before(cur.PurgeAt):
		return Decision{}, NewNotFoundError(op.ID)
	case op.Etag != "" && op.Etag != cur.Etag():
		return Decision{}, newEtagMismatchError(cur)
	}
	next := cur.Clone()
	next.DeletedAt, next.PurgeAt = time.Time{}, time.Time{}
	return lifecycleChange(cur, next, ActionUndeleted, stamp, by), nil
}

func lifecycleChange(cur, next *User, action string, stamp CommitStamp, by Author) Decision {
	changed := newDetails(by)
	changed.changes(cur, next, lifecycleFields)
	d := Decision{User: next}
	next.StatusPosition = d.add(stamp, cur.ID, action, changed)
	d.seal(stamp)
	return d
}

// purging is the purge time of a user whose purge has started. It is before any lower bound of the
// current time, so the user stays due and cannot be undeleted.
var purging = time.UnixMicro(1).UTC()

// StartPurge makes a deleted user permanently due for its purge. It adds no log row.
type StartPurge struct {
	ID   int64
	Etag string // expected version; empty: any
	Now  bool   // also before the purge time
}

// Target returns the id of the user.
func (op *StartPurge) Target() int64 { return op.ID }

// Decide sets the purge time to one that has always passed.
func (op *StartPurge) Decide(cur *User, stamp CommitStamp, _ Author) (Decision, error) {
	switch {
	case cur == nil:
		return Decision{}, NewNotFoundError(op.ID)
	case !cur.Deleted() || !op.Now && stamp.Earliest.Before(cur.PurgeAt):
		return Decision{}, newNotDeletedError(op.ID)
	case op.Etag != "" && op.Etag != cur.Etag():
		return Decision{}, newEtagMismatchError(cur)
	}
	next := cur.Clone()
	next.PurgeAt = purging
	return Decision{User: next, Store: !cur.PurgeAt.Equal(purging)}, nil
}

// redactBatch bounds how long one step of a purge delays other writers.
const redactBatch = 500

// ApplyPurge erases a deleted user: it starts the purge, redacts the log rows in steps, and removes
// the user. If it fails in between, the user remains due for the purge, and a repetition completes
// it. The change has no op, but may have an IdempotencyKey, under which the result of the purge is
// stored.
func ApplyPurge(ctx context.Context, store Store, start *StartPurge, change Change) (Result, error) {
	change.Op, change.Prepare = start, true
	started, err := ApplyOne(ctx, store, change)
	if err != nil || started.User == nil { // purged by an earlier request with the key
		return started, err
	}
	for more := true; more; {
		if more, err = store.Redact(ctx, start.ID, redactBatch); err != nil {
			return Result{}, err
		}
	}
	change.Op, change.Prepare, change.Reserve = &Purge{ID: start.ID}, false, nil // its result has no user
	return ApplyOne(ctx, store, change)
}

// Purge removes a deleted user after its purge time. It is the last step of ApplyPurge.
type Purge struct{ ID int64 }

// Target returns the id of the user.
func (op *Purge) Target() int64 { return op.ID }

// Decide removes the user and adds a user.purged row.
func (op *Purge) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	switch {
	case cur == nil:
		return Decision{}, NewNotFoundError(op.ID)
	case !cur.Deleted() || stamp.Earliest.Before(cur.PurgeAt):
		return Decision{}, newNotDeletedError(op.ID)
	}
	d := Decision{Store: true}
	d.add(stamp, op.ID, ActionPurged, newDetails(by))
	return d, nil
}
