package service

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// userToProto converts the selected fields of a user. The message shares tags and metadata
// with u.
func userToProto(u *user.User, fields fieldSet) *userv1.User {
	out := &userv1.User{
		UserId:    u.ID,
		Username:  u.Username,
		Email:     u.Email,
		Status:    userv1.UserStatus(u.Status),
		CreatedAt: timeToProto(u.CreatedAt),
		UpdatedAt: timeToProto(u.UpdatedAt),
		Tags:      u.Tags,
		Metadata:  u.Metadata,
		Version:   u.Version,
		Etag:      u.Etag(),
		DeletedAt: timeToProto(u.DeletedAt),
		PurgeAt:   timeToProto(u.PurgeAt),
	}
	fields.keepIn(out)
	return out
}

// unstoredToProto converts a validated user that was not stored: it has no id, times, version
// and etag.
func unstoredToProto(u *user.User) *userv1.User {
	return &userv1.User{
		Username: u.Username,
		Email:    u.Email,
		Status:   userv1.UserStatus(u.Status),
		Tags:     u.Tags,
		Metadata: u.Metadata,
	}
}

// activityToProto converts a log row. The message shares its details.
func activityToProto(a *user.Activity) *userv1.UserActivity {
	return &userv1.UserActivity{
		ActivityId: a.Position,
		UserId:     a.UserID,
		Action:     a.Action,
		Timestamp:  timeToProto(a.Time),
		Details:    a.Details,
	}
}

// timeToProto converts a time; the zero time is nil.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromProto converts the timestamp of a request field, truncated to microseconds. nil is
// the zero time. A timestamp outside the years 1 to 9999 is an INVALID_FIELD error.
func timeFromProto(field string, ts *timestamppb.Timestamp) (time.Time, error) {
	if ts == nil {
		return time.Time{}, nil
	}
	if !ts.IsValid() {
		return time.Time{}, user.NewFieldErrorf(field, "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z")
	}
	t := user.Truncate(ts.AsTime())
	if t.IsZero() {
		// The first instant of the range is the zero time, which means unset.
		t = t.Add(time.Microsecond)
	}
	return t, nil
}

func conflictFromProto(policy userv1.ConflictPolicy) user.Conflict {
	switch policy {
	case userv1.ConflictPolicy_CONFLICT_POLICY_SKIP:
		return user.ConflictSkip
	case userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE:
		return user.ConflictUpdate
	default:
		return user.ConflictFail
	}
}

func outcomeToProto(outcome user.Outcome) userv1.ItemOutcome {
	switch outcome {
	case user.OutcomeCreated:
		return userv1.ItemOutcome_ITEM_OUTCOME_CREATED
	case user.OutcomeUpdated:
		return userv1.ItemOutcome_ITEM_OUTCOME_UPDATED
	case user.OutcomeUnchanged:
		return userv1.ItemOutcome_ITEM_OUTCOME_UNCHANGED
	case user.OutcomeValid:
		return userv1.ItemOutcome_ITEM_OUTCOME_VALID
	default:
		return userv1.ItemOutcome_ITEM_OUTCOME_FAILED
	}
}
