package user_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
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
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if got := user.NewNotFoundError(7).Error(); got != "user not found" {
		t.Errorf("NewNotFoundError(7).Error() = %q, want user not found", got)
	}
}

func TestWithFieldPrefix(t *testing.T) {
	e := user.NewInvalidError(user.Violation{Field: "email"}, user.Violation{})
	at := e.WithFieldPrefix("requests[3]")
	if at.Violations[0].Field != "requests[3].email" || at.Violations[1].Field != "requests[3]" {
		t.Errorf("WithFieldPrefix() violations = %+v", at.Violations)
	}
	if e.Violations[0].Field != "email" {
		t.Errorf("WithFieldPrefix() modified the error: %+v", e.Violations)
	}
}

func TestHasReason(t *testing.T) {
	wrapped := fmt.Errorf("apply: %w", &user.ItemError{Index: 2, Err: user.NewDeletedError(7, 0)})
	if !user.HasReason(wrapped, user.UserDeleted) || user.HasReason(wrapped, user.UserNotFound) {
		t.Errorf("HasReason(%v) has the wrong result", wrapped)
	}
	if user.HasReason(errors.New("other"), user.UserDeleted) || user.HasReason(nil, user.UserDeleted) {
		t.Error("HasReason() = true for an error without a reason, want false")
	}
}

func TestTruncate(t *testing.T) {
	zone := time.FixedZone("", 3600)
	at := time.Date(2026, 1, 1, 1, 0, 0, 1999, zone)
	if got := user.Truncate(at); got != time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC) {
		t.Errorf("Truncate() = %v", got)
	}
	if !user.Truncate(time.Time{}).IsZero() {
		t.Error("Truncate(zero) is set, want zero")
	}
}

func TestQuoteTruncates(t *testing.T) {
	for in, want := range map[string]string{
		"a\n":                   `"a\n"`,
		strings.Repeat("ä", 40): `"` + strings.Repeat("ä", 40) + `"`,
		strings.Repeat("ä", 41): `"` + strings.Repeat("ä", 40) + `…"`,
	} {
		if got := user.Quote(in); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	for status, name := range map[user.Status]string{
		user.StatusNone: "USER_STATUS_UNSPECIFIED", user.StatusSuspended: "USER_STATUS_SUSPENDED",
		9: "USER_STATUS_9", -1: "USER_STATUS_-1",
	} {
		if status.String() != name {
			t.Errorf("Status(%d) = %s, want %s", int(status), status, name)
		}
	}
	for status := user.Status(-1); status < 6; status++ {
		if want := status >= 1 && status <= 3; status.Valid() != want {
			t.Errorf("Status(%d).Valid() = %v", int(status), status.Valid())
		}
	}
}

func TestErrorMessagesAndMetadata(t *testing.T) {
	for _, row := range []struct {
		err      *user.Error
		text     string
		metadata map[string]string
	}{
		{user.NewTakenError(user.UsernameTaken, false), "username already taken", map[string]string{"holder_deleted": "false"}},
		{user.NewTakenError(user.EmailTaken, true), "e-mail address already taken", map[string]string{"holder_deleted": "true"}},
		{user.NewInternalError("abc"), "internal error", map[string]string{"incident": "abc"}},
		{user.NewInternalError(""), "internal error", nil},
	} {
		if row.err.Error() != row.text || !maps.Equal(row.err.Metadata, row.metadata) {
			t.Errorf("error = %q with %v, want %q with %v", row.err, row.err.Metadata, row.text, row.metadata)
		}
	}
	drained, call := user.NewDrainingError("e", 7), user.NewDrainedCallError("e", 7)
	if drained.Message == call.Message || !maps.Equal(drained.Metadata, call.Metadata) {
		t.Errorf("NewDrainedCallError() = %q with %v, want the metadata of NewDrainingError and another message", call.Message, call.Metadata)
	}
	if e := user.NewDeletedError(7, 9); e.Position != 9 || e.Metadata["user_id"] != "7" {
		t.Errorf("NewDeletedError(7, 9) = %+v", e)
	}
}
