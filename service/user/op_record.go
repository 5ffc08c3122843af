package user

import (
	"maps"
	"strings"
)

// Record appends a row recorded by an application.
type Record struct {
	ID      int64
	Action  string
	Details map[string]string
}

// NewRecord validates the action and the details.
func NewRecord(id int64, action string, details map[string]string) (*Record, error) {
	var violations []Violation
	if strings.HasPrefix(action, ReservedAction) {
		violations = append(violations, Violation{
			Field: "action", Message: `must not begin with "user.", which is reserved for the service`,
		})
	}
	for _, key := range []string{DetailActor, DetailRequestID} {
		if _, ok := details[key]; ok {
			violations = append(violations, Violation{
				Field: `details["` + key + `"]`, Message: "is set by the server",
			})
		}
	}
	if violations != nil {
		return nil, NewInvalidError(violations...)
	}
	return &Record{ID: id, Action: action, Details: details}, nil
}

// Target returns the id of the user.
func (op *Record) Target() int64 { return op.ID }

// Decide adds the row and does not change the user.
func (op *Record) Decide(cur *User, stamp CommitStamp, by Author) (Decision, error) {
	if err := requireLive(cur, op.ID); err != nil {
		return Decision{}, err
	}
	fields := newDetails(by)
	maps.Copy(fields, op.Details)
	d := Decision{User: cur}
	d.add(stamp, op.ID, op.Action, fields)
	return d, nil
}
