package user

import "time"

// SetStatus sets a user's status. The last writer by Time wins.
type SetStatus struct {
	ID     int64
	Status Status
	Time   time.Time // zero: the later of now and the current status time
}

// Target returns the id of the user.
func (op *SetStatus) Target() int64 { return op.ID }

// Decide sets the status unless the current status time is later. The same status with a
// later time updates only that time, without a row or a new version.
func (op *SetStatus) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if op.Time.Sub(stamp.Clock) > MaxStatusSkew {
		return Decision{}, NewFieldErrorf("timestamp", "must be at most one minute ahead of the server's clock, currently %s",
			stamp.Clock.Format(time.RFC3339Nano))
	}
	if err := requireLive(cur, op.ID); err != nil {
		return Decision{}, err
	}
	current := stamp.statusTime(cur)
	at := Truncate(op.Time)
	if op.Time.IsZero() {
		at = later(stamp.Clock, current)
	}
	if at.Before(current) {
		return Decision{User: cur}, nil
	}
	d := Decision{User: cur.Clone()}
	setStatus(&d, cur, d.User, op.Status, at, stamp, by)
	d.seal(stamp)
	return d, nil
}

// statusTime returns the time that a new status is compared with. A stored time beyond
// MaxStatusSkew was set while the clock was wrong; any status replaces it.
func (stamp CommitStamp) statusTime(cur *User) time.Time {
	if cur.StatusTime.Sub(stamp.Clock) > MaxStatusSkew {
		return time.Time{}
	}
	return cur.StatusTime
}

// ReadBarrier changes nothing. Its result is the user after all changes submitted before it.
type ReadBarrier struct{ ID int64 }

// Target returns the id of the user.
func (op *ReadBarrier) Target() int64 { return op.ID }

// Decide returns the current user, or the error of a change to it.
func (op *ReadBarrier) Decide(cur *User, _ CommitStamp, _ Author) (Decision, error) {
	return Decision{User: cur}, requireLive(cur, op.ID)
}

func setStatus(d *Decision, cur, next *User, status Status, at time.Time, stamp CommitStamp, by Author) {
	if !at.Equal(cur.StatusTime) {
		next.StatusTime = at
		d.Store = true
	}
	if status == cur.Status {
		return
	}
	next.Status = status
	changed := newDetails(by)
	changed.changes(cur, next, statusField)
	next.StatusPosition = d.add(stamp, cur.ID, ActionStatusChanged, changed)
}
