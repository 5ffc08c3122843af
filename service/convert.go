package service

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// userToProto gives a user as the wire has it, or only the wanted fields of it. The
// answer shares tags and metadata with u, which must belong to the caller alone.
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

// unstoredToProto gives a user who was checked and not stored: without all that
// only storing gives, above all without an id.
func unstoredToProto(u *user.User) *userv1.User {
	return &userv1.User{
		Username: u.Username,
		Email:    u.Email,
		Status:   userv1.UserStatus(u.Status),
		Tags:     u.Tags,
		Metadata: u.Metadata,
	}
}

// activityToProto gives a row of the log as the wire has it; it shares the details.
func activityToProto(a *user.Activity) *userv1.UserActivity {
	return &userv1.UserActivity{
		ActivityId: a.Position,
		UserId:     a.UserID,
		Action:     a.Action,
		Timestamp:  timeToProto(a.Time),
		Details:    a.Details,
	}
}

// timeToProto gives a time as the wire has it, nil for one that is not set.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromProto gives the time of a request's field, truncated to microseconds; an
// unset one is the zero time. A timestamp out of the range that the protocol
// allows (years 1 to 9999) is an INVALID_FIELD error.
func timeFromProto(field string, ts *timestamppb.Timestamp) (time.Time, error) {
	if ts == nil {
		return time.Time{}, nil
	}
	if !ts.IsValid() {
		return time.Time{}, user.NewFieldErrorf(field, "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z")
	}
	t := user.Truncate(ts.AsTime())
	if t.IsZero() {
		// The first instant of the range is the domain's "not set"; the next one
		// that can be told from it is meant just as well.
		t = t.Add(time.Microsecond)
	}
	return t, nil
}

// conflictFromProto gives the policy; the one that is not named is to fail.
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

// outcomeToProto gives what became of an item.
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
