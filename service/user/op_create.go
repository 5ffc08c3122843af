package user

// Create creates a user. The store sets ID, a new id, before it calls Decide.
type Create struct {
	ID     int64
	Values User // the writable fields, without status
	Keys   Keys // normal forms of the names in Values
}

// NewCreate validates and sanitizes the values and computes their normal forms.
func NewCreate(values User) (*Create, error) {
	op := &Create{Values: values}
	op.Values.Status = StatusNone
	var violations []Violation
	if op.Keys, violations = op.Values.normalize(profileFields); violations != nil {
		return nil, NewInvalidError(violations...)
	}
	return op, nil
}

// Target returns 0: the user does not exist yet.
func (op *Create) Target() int64 { return 0 }

// Decide returns the new user and its user.created row.
func (op *Create) Decide(_ *User, stamp CommitStamp, by Author) (Decision, error) {
	u := op.user()
	u.StatusTime, u.StatusPosition = stamp.Clock, stamp.NextPosition
	u.CreatedAt, u.UpdatedAt = stamp.LogTime, stamp.LogTime
	changed := newDetails(by)
	changed.changes(noUser, u, writableFields)
	d := Decision{User: u, Store: true}
	u.LastActivityID = d.add(stamp, u.ID, ActionCreated, changed)
	return d, nil
}

// Terms returns the terms of the new user. They are the same for each stamp.
func (op *Create) Terms() []Term { return op.user().Terms() }

// user returns the new user without its times and positions.
func (op *Create) user() *User {
	u := &User{ID: op.ID, Status: StatusActive, Version: 1}
	u.set(&op.Values, profileFields)
	return u
}

// Resolve applies the conflict policy. byName holds the username, byEmail the e-mail address;
// one may be nil, and both may be the same user. It returns the user that is the result
// (skip), the op that replaces the create, or an error.
func (op *Create) Resolve(policy Conflict, byName, byEmail *User) (skip *User, instead Op, err error) {
	holder, reason := byName, UsernameTaken
	if holder == nil {
		holder, reason = byEmail, EmailTaken
	}
	taken := NewTakenError(reason, holder.Deleted())
	switch policy {
	case ConflictSkip:
		return holder, nil, nil
	case ConflictUpdate:
		if holder.Deleted() || byName != nil && byEmail != nil && byName.ID != byEmail.ID {
			return nil, nil, taken
		}
		return nil, &Update{ID: holder.ID, Patch: NewPatch(op.Values), Keys: op.Keys}, nil
	default:
		return nil, nil, taken
	}
}
