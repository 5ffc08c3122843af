package user

import "time"

// SetStatus sets a user's status. The last writer by Time wins.
type SetStatus struct {
	ID     int64
	Status Status
	Time   time.Time // zero: the later of now and the present status's time
}

// Target is the user whose status is set.
func (op *SetStatus) Target() int64 { return op.ID }

// Decide sets the status unless a later one stands. The same status with a newer
// time moves only that time, without a row and without a step of the version.
func (op *SetStatus) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if op.Time.Sub(stamp.Clock) > MaxStatusSkew {
		return Decision{}, NewFieldErrorf("timestamp", "must be at most one minute ahead of the server's clock, which says %s",
			stamp.Clock.Format(time.RFC3339Nano))
	}
	if err := live(cur, op.ID); err != nil {
		return Decision{}, err
	}
	present := stamp.statusTime(cur)
	at := Truncate(op.Time)
	if op.Time.IsZero() {
		at = later(stamp.Clock, present)
	}
	if at.Before(present) {
		return Decision{User: cur}, nil
	}
	d := Decision{User: cur.Clone()}
	setStatus(&d, cur, d.User, op.Status, at, stamp, by)
	d.seal(stamp)
	return d, nil
}

// statusTime returns the time that a new status is compared with. A stored time that no
// caller could give now comes from a clock that was wrong; any status is later than that.
func (stamp CommitStamp) statusTime(cur *User) time.Time {
	if cur.StatusTime.Sub(stamp.Clock) > MaxStatusSkew {
		return time.Time{}
	}
	return cur.StatusTime
}

// ReadBarrier changes nothing: its result is the user as of its turn among the changes. It
// is for whoever has changes of the same user under way, and must see them.
type ReadBarrier struct{ ID int64 }

// Target is the user to look at.
func (op *ReadBarrier) Target() int64 { return op.ID }

// Decide gives the user as it is, or why it cannot be changed.
func (op *ReadBarrier) Decide(cur *User, _ CommitStamp, _ Author) (Decision, error) {
	return Decision{User: cur}, live(cur, op.ID)
}

// setStatus gives next the status with its time, and notes a row if it changes.
func setStatus(d *Decision, cur, next *User, status Status, at time.Time, stamp CommitStamp, by Author) {
	if !at.Equal(cur.StatusTime) {
		next.StatusTime = at
		d.Store = true
	}
	if status == cur.Status {
		return
	}
	next.Status = status
	what := newDetails(by)
	what.status(cur.Status, status)
	next.StatusPosition = d.add(stamp, cur.ID, ActionStatusChanged, what)
}
