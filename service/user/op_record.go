package user

import (
	"maps"
	"strings"
)

// Record adds an application's own row about a user to the log.
type Record struct {
	ID      int64
	Action  string
	Details map[string]string
}

// NewRecord checks the action and the details.
func NewRecord(id int64, action string, what map[string]string) (*Record, error) {
	var violations []Violation
	if strings.HasPrefix(action, ReservedAction) {
		violations = append(violations, Violation{
			Field: "action", Message: `must not begin with "user.", which is reserved to the service`,
		})
	}
	for _, key := range []string{DetailActor, DetailRequestID} {
		if _, ok := what[key]; ok {
			violations = append(violations, Violation{
				Field: `details["` + key + `"]`, Message: "is set by the server",
			})
		}
	}
	if violations != nil {
		return nil, NewInvalidError(violations...)
	}
	return &Record{ID: id, Action: action, Details: what}, nil
}

// Target is the user that the row is about.
func (op *Record) Target() int64 { return op.ID }

// Decide adds the row; the user stays as it is.
func (op *Record) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if err := live(cur, op.ID); err != nil {
		return Decision{}, err
	}
	what := newDetails(by)
	maps.Copy(what, op.Details)
	d := Decision{User: cur}
	d.add(stamp, op.ID, op.Action, what)
	return d, nil
}
