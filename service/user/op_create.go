package user

import (
	"maps"
	"slices"
)

// Create creates a user. The store sets ID, a new id, before it calls Decide.
type Create struct {
	ID       int64
	Username string
	Email    string
	Tags     []string
	Metadata map[string]string
	Keys     Keys // normal forms of Username and Email
}

// NewCreate validates and sanitizes the fields and computes their normal forms.
func NewCreate(username, email string, tags []string, metadata map[string]string) (*Create, error) {
	op := &Create{Username: Sanitize(username), Email: Sanitize(email), Tags: tags, Metadata: metadata}
	var violations []Violation
	var err *Error
	if op.Keys.Username, err = UsernameKey(op.Username); err != nil {
		violations = append(violations, err.Violations...)
	}
	if op.Keys.Email, err = EmailKey(op.Email); err != nil {
		violations = append(violations, err.Violations...)
	}
	if violations != nil {
		return nil, NewInvalidError(violations...)
	}
	return op, nil
}

// Target returns 0: the user does not exist yet.
func (op *Create) Target() int64 { return 0 }

// Decide returns the new user and its user.created row.
func (op *Create) Decide(_ *User, stamp CommitStamp, by Author) (Decision, error) {
	u := &User{
		ID: op.ID, Username: op.Username, Email: op.Email,
		Status: StatusActive, StatusTime: stamp.Clock, StatusPosition: stamp.NextPosition,
		CreatedAt: stamp.LogTime, UpdatedAt: stamp.LogTime,
		Tags: slices.Clone(op.Tags), Metadata: maps.Clone(op.Metadata), Version: 1,
	}
	fields := newDetails(by)
	fields.text("username", "", u.Username)
	fields.text("email", "", u.Email)
	fields.status(StatusNone, u.Status)
	fields.tags(nil, u.Tags)
	fields.metadata(nil, u.Metadata)
	d := Decision{User: u, Store: true}
	d.add(stamp, u.ID, ActionCreated, fields)
	return d, nil
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
		return nil, &Update{ID: holder.ID, Patch: op.patch(), Keys: op.Keys}, nil
	default:
		return nil, nil, taken
	}
}

func (op *Create) patch() Patch {
	p := Patch{Username: &op.Username, Email: &op.Email}
	if len(op.Tags) > 0 {
		p.Tags = &op.Tags
	}
	if len(op.Metadata) > 0 {
		p.Metadata = &op.Metadata
	}
	return p
}
