package user

import "time"

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

// Purge removes a deleted user after its purge time. The log rows of the user must be redacted
// before, see Store.Redact.
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
