package user_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

func TestErrorText(t *testing.T) {
	e := user.NewInvalidError(
		user.Violation{Field: "email", Message: "must be set"},
		user.Violation{Message: "must make sense"},
	)
	if got, want := e.Error(), "invalid request: email: must be set; must make sense"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := user.NewNotFoundError(7).Error(); got != "there is no such user" {
		t.Errorf("got %q", got)
	}
}

func TestErrorAt(t *testing.T) {
	e := user.NewInvalidError(user.Violation{Field: "email"}, user.Violation{})
	at := e.WithFieldPrefix("requests[3]")
	if at.Violations[0].Field != "requests[3].email" || at.Violations[1].Field != "requests[3]" {
		t.Errorf("got %+v", at.Violations)
	}
	if e.Violations[0].Field != "email" {
		t.Errorf("the error itself was changed: %+v", e.Violations)
	}
}

func TestHasReason(t *testing.T) {
	wrapped := fmt.Errorf("apply: %w", &user.ItemError{Index: 2, Err: user.NewDeletedError(7, 0)})
	if !user.HasReason(wrapped, user.UserDeleted) || user.HasReason(wrapped, user.UserNotFound) {
		t.Errorf("the reason of %v", wrapped)
	}
	if user.HasReason(errors.New("other"), user.UserDeleted) || user.HasReason(nil, user.UserDeleted) {
		t.Error("a reason where there is none")
	}
}

func TestTruncate(t *testing.T) {
	zone := time.FixedZone("", 3600)
	at := time.Date(2026, 1, 1, 1, 0, 0, 1999, zone)
	if got := user.Truncate(at); got != time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC) {
		t.Errorf("got %v", got)
	}
	if !user.Truncate(time.Time{}).IsZero() {
		t.Error("a time that is not set was set")
	}
}

func TestStatus(t *testing.T) {
	for status, name := range map[user.Status]string{
		user.StatusNone: "USER_STATUS_UNSPECIFIED", user.StatusSuspended: "USER_STATUS_SUSPENDED",
		9: "USER_STATUS_9", -1: "USER_STATUS_-1",
	} {
		if status.String() != name {
			t.Errorf("%d is %s, want %s", int(status), status, name)
		}
	}
	for status := user.Status(-1); status < 6; status++ {
		if want := status >= 1 && status <= 3; status.Valid() != want {
			t.Errorf("status %d is valid: %v", int(status), status.Valid())
		}
	}
}

// What an error says, and what it says it with.
func TestErrorsOfNames(t *testing.T) {
	for _, row := range []struct {
		err      *user.Error
		text     string
		metadata map[string]string
	}{
		{user.NewTakenError(user.UsernameTaken, false), "the username is taken", map[string]string{"holder_deleted": "false"}},
		{user.NewTakenError(user.EmailTaken, true), "the e-mail address is taken", map[string]string{"holder_deleted": "true"}},
		{user.NewInternalError("abc"), "an unexpected failure of the service", map[string]string{"incident": "abc"}},
		{user.NewInternalError(""), "an unexpected failure of the service", nil},
	} {
		if row.err.Error() != row.text || !maps.Equal(row.err.Metadata, row.metadata) {
			t.Errorf("got %q with %v, want %q with %v", row.err, row.err.Metadata, row.text, row.metadata)
		}
	}
	drained, call := user.NewDrainingError("e", 7), user.NewDrainedCallError("e", 7)
	if drained.Message == call.Message || !maps.Equal(drained.Metadata, call.Metadata) {
		t.Errorf("a drained call says %q with %v", call.Message, call.Metadata)
	}
	if e := user.NewDeletedError(7, 9); e.Position != 9 || e.Metadata["user_id"] != "7" {
		t.Errorf("NewDeletedError(7, 9) = %+v", e)
	}
}
