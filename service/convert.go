package service

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// userToProto converts the selected fields of a user. The message shares lists and maps with u.
func userToProto(u *user.User, fields user.FieldSet) *userv1.User {
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

		LastActivityId: u.LastActivityID,
	}
	if fields != user.APIFields() {
		m := out.ProtoReflect()
		for i := range user.Fields() {
			if f := &user.Fields()[i]; f.Number < user.InternalNumber && !fields.Has(f) {
				m.Clear(m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(f.Number)))
			}
		}
	}
	return out
}

// profile is a message with the writable fields of a user except the status.
type profile interface {
	GetUsername() string
	GetEmail() string
	GetTags() []string
	GetMetadata() map[string]string
}

// profileFromProto converts a User or a CreateUserRequest. The user shares lists and maps with m.
func profileFromProto(m profile) user.User {
	return user.User{
		Username: m.GetUsername(),
		Email:    m.GetEmail(),
		Tags:     m.GetTags(),
		Metadata: m.GetMetadata(),
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

// progressRow returns a row that reports completeness up to the position.
func progressRow(position int64) *userv1.UserActivity {
	return &userv1.UserActivity{ActivityId: position}
}

func (s *Service) statusUpdate(current user.CurrentStatus) *userv1.UserStatusUpdate {
	return &userv1.UserStatusUpdate{
		UserId:     current.UserID,
		Status:     userv1.UserStatus(current.Status),
		Timestamp:  timeToProto(current.Time),
		ActivityId: current.Position,
		Epoch:      s.feed.Head().Epoch,
	}
}

// statusChange converts a change for subscribers. A deleted or purged user is an error item.
func (s *Service) statusChange(change *feed.StatusChange) *userv1.UserStatusUpdate {
	if err := change.Err(); err != nil {
		update := s.statusFailure(change.UserID, err)
		update.ActivityId = change.Position
		return update
	}
	update := s.statusUpdate(change.Current)
	update.ActivityId = change.Position
	return update
}

// statusFailure converts the error of an item of a status stream. The details are in
// ItemFailure and not in Status, because JSON clients could not decode them there.
func (s *Service) statusFailure(userID int64, err error) *userv1.UserStatusUpdate {
	failure := batch.NewFailure(s.log, 0, userID, err)
	return &userv1.UserStatusUpdate{
		UserId: userID, Epoch: s.feed.Head().Epoch, Failure: failure,
		Error: &status.Status{Code: int32(failure.GetCode()), Message: failure.GetMessage()},
	}
}

// statusProgress returns the message of a status stream that nothing is missing up to the
// position.
func (s *Service) statusProgress(position int64) *userv1.UserStatusUpdate {
	return &userv1.UserStatusUpdate{ActivityId: position, Epoch: s.feed.Head().Epoch, Progress: true}
}

func author(ctx context.Context, requestID string) user.Author {
	return user.Author{Actor: auth.FromContext(ctx).Subject, RequestID: requestID}
}

// idempotentRequest is a request, or an item of one, with an optional request id.
type idempotentRequest interface {
	proto.Message
	GetRequestId() string
}

// idempotencyKey returns the idempotency key of a request, scoped to caller and procedure. It
// is nil for a request without an id. more is request data outside the message.
func idempotencyKey(ctx context.Context, procedure string, req idempotentRequest, more ...byte) (*user.IdempotencyKey, error) {
	id := req.GetRequestId()
	if id == "" {
		return nil, nil
	}
	sum, err := fingerprint(req, more)
	if err != nil {
		return nil, err
	}
	return &user.IdempotencyKey{
		Caller:      auth.FromContext(ctx).Subject,
		Procedure:   procedure,
		ID:          strings.ToLower(id), // UUIDs are case-insensitive
		Fingerprint: sum,
	}, nil
}

// fingerprint hashes a request without its id.
func fingerprint(req idempotentRequest, more []byte) ([sha256.Size]byte, error) {
	bare := proto.Clone(req)
	m := bare.ProtoReflect()
	m.Clear(m.Descriptor().Fields().ByName("request_id"))
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode request for its fingerprint: %w", err)
	}
	return sha256.Sum256(append(encoded, more...)), nil
}
