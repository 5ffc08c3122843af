package user

import (
	"maps"
	"slices"
)

// Create makes a new user. ID must be set before it is decided: by the store,
// which also sees to it that the id is new.
type Create struct {
	ID       int64
	Username string
	Email    string
	Tags     []string
	Metadata map[string]string
	Keys     Keys // normal forms of Username and Email
}

// NewCreate checks the fields and finds their normal forms. The names are stored as Sanitize
// returns them.
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

// Target is 0: the user does not exist yet.
func (op *Create) Target() int64 { return 0 }

// Decide makes the user.
func (op *Create) Decide(_ *User, stamp CommitStamp, by Author) (Decision, error) {
	u := &User{
		ID: op.ID, Username: op.Username, Email: op.Email,
		Status: StatusActive, StatusTime: stamp.Clock, StatusPosition: stamp.NextPosition,
		CreatedAt: stamp.LogTime, UpdatedAt: stamp.LogTime,
		Tags: slices.Clone(op.Tags), Metadata: maps.Clone(op.Metadata), Version: 1,
	}
	what := newDetails(by)
	what.text("username", "", u.Username)
	what.text("email", "", u.Email)
	what.status(StatusNone, u.Status)
	what.tags(nil, u.Tags)
	what.metadata(nil, u.Metadata)
	d := Decision{User: u, Store: true}
	d.add(stamp, u.ID, ActionCreated, what)
	return d, nil
}

// Resolve says what becomes of the create when others hold its names: byName its
// username, byEmail its e-mail address; either may be nil, both may be the same
// user. It returns the user to leave alone (skip), or the op to apply in place of
// the create, or the error.
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
