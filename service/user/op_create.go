package user

import "iter"

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
	return op.Draft(by).Decide(op.ID, stamp), nil
}

// Draft is a new user with its user.created row, without what depends on its ID and the stamp.
type Draft struct {
	user    User
	details map[string]string
}

// Draft returns the new user as a draft.
func (op *Create) Draft(by Author) *Draft {
	d := &Draft{user: User{Status: StatusActive, Version: 1}}
	d.user.set(&op.Values, profileFields)
	changed := newDetails(by)
	changed.changes(noUser, &d.user, writableFields)
	d.details = changed.truncate()
	return d
}

// Terms returns the terms of the new user, see User.Terms.
func (d *Draft) Terms() iter.Seq[[]byte] { return d.user.Terms(termFields) }

// Details returns the details of the row. They must not be modified.
func (d *Draft) Details() map[string]string { return d.details }

// Decide returns the decision, which shares lists and maps with the draft.
func (d *Draft) Decide(id int64, stamp CommitStamp) Decision {
	u := d.user
	u.ID = id
	u.StatusTime, u.StatusPosition = stamp.Clock, stamp.NextPosition
	u.CreatedAt, u.UpdatedAt = stamp.LogTime, stamp.LogTime
	u.LastActivityID = stamp.NextPosition
	row := Activity{Position: stamp.NextPosition, UserID: id, Action: ActionCreated, Time: stamp.LogTime, Details: d.details}
	return Decision{User: &u, Store: true, Rows: []Activity{row}}
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
