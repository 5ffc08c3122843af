package user

import "time"

// Delete marks a user as deleted, to be purged after Retention.
type Delete struct {
	ID        int64
	Etag      string // apply only to this version; empty: to any
	Retention time.Duration
}

// Target is the user to delete.
func (op *Delete) Target() int64 { return op.ID }

// Decide marks the user.
func (op *Delete) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if err := live(cur, op.ID); err != nil {
		return Decision{}, err
	}
	if op.Etag != "" && op.Etag != cur.Etag() {
		return Decision{}, newEtagMismatchError(cur)
	}
	next := cur.Clone()
	next.DeletedAt = stamp.LogTime
	next.PurgeAt = Truncate(stamp.Clock.Add(op.Retention))
	return lifeStep(cur, next, ActionDeleted, stamp, by), nil
}

// Undelete takes a deletion back, until the user is due to be purged.
type Undelete struct {
	ID   int64
	Etag string // apply only to this version; empty: to any
}

// Target is the user to bring back.
func (op *Undelete) Target() int64 { return op.ID }

// Decide takes the mark off. A user whose time to be purged has come is gone, even
// if its purge has yet to be carried out.
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
	return lifeStep(cur, next, ActionUndeleted, stamp, by), nil
}

func lifeStep(cur, next *User, action string, stamp CommitStamp, by Author) Decision {
	what := newDetails(by)
	what.time("deleted_at", cur.DeletedAt, next.DeletedAt)
	what.time("purge_at", cur.PurgeAt, next.PurgeAt)
	d := Decision{User: next}
	next.StatusPosition = d.add(stamp, cur.ID, action, what)
	d.seal(stamp)
	return d
}

// Purge removes a deleted user for good once its time has come. The store redacts
// the user's rows before, see Store.Redact.
type Purge struct{ ID int64 }

// Target is the user to remove.
func (op *Purge) Target() int64 { return op.ID }

// Decide removes the user, and leaves one row that says so.
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
