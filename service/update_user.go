package service

import (
	"context"
	"maps"
	"strings"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/fieldmask"
	"github.com/yourorg/userservice/service/user"
)

// UpdateUser changes the writable fields of a user. A request without fields returns the
// current user. Errors: INVALID_FIELD, USER_NOT_FOUND, USER_DELETED, USERNAME_TAKEN,
// EMAIL_TAKEN, ETAG_MISMATCH, REQUEST_ID_REUSED.
func (s *Service) UpdateUser(ctx context.Context, req *userv1.UpdateUserRequest) (*userv1.UpdateUserResponse, error) {
	change, err := updateChange(ctx, userv1connect.UserServiceUpdateUserProcedure, req)
	if err != nil {
		return nil, err
	}
	result, err := s.applyOne(ctx, change)
	if err != nil {
		return nil, s.addChangedFields(ctx, err, req.GetUserId(), req.GetEtag())
	}
	s.setPosition(ctx, result.Position)
	return &userv1.UpdateUserResponse{User: userToProto(result.User, user.APIFields())}, nil
}

// updateChange converts a request, or an item of one, to a change. procedure is the RPC called.
func updateChange(ctx context.Context, procedure string, req *userv1.UpdateUserRequest) (user.Change, error) {
	op, err := newUpdate(req)
	if err != nil {
		return user.Change{}, err
	}
	key, err := idempotencyKey(ctx, procedure, req)
	return user.Change{Op: op, By: author(ctx, req.GetRequestId()), IdempotencyKey: key}, err
}

// newUpdate converts the request to an op. It reports all violations of mask and values.
func newUpdate(req *userv1.UpdateUserRequest) (*user.Update, error) {
	if req.GetUser() == nil {
		return nil, user.NewFieldErrorf("user", "must be set")
	}
	var violations []user.Violation
	if inner := req.GetUser().GetUserId(); inner != 0 && inner != req.GetUserId() {
		violations = append(violations, user.Violation{
			Field: "user.user_id", Message: "must be unset or equal to user_id",
		})
	}
	values := profileFromProto(req.GetUser())
	values.Status = user.Status(req.GetUser().GetStatus())
	patch := user.NewPatch(values)
	if paths := req.GetUpdateMask().GetPaths(); len(paths) > 0 {
		var invalid []user.Violation
		patch, invalid = fieldmask.Update(values, paths)
		violations = append(violations, invalid...)
	}
	op, err := user.NewUpdate(req.GetUserId(), patch, req.GetEtag())
	if e, ok := user.AsError(err); ok && len(violations) > 0 {
		violations = append(violations, e.Violations...)
	}
	if len(violations) > 0 {
		return nil, user.NewInvalidError(violations...)
	}
	return op, err
}

// maxMismatchRows is the number of log rows read to compute changed_fields.
const maxMismatchRows = 200

// addChangedFields adds changed_fields, the fields changed since the etag of the request, to an
// ETAG_MISMATCH error. It returns other errors unchanged, and also the mismatch if the etag is
// invalid or a read of the store fails.
func (s *Service) addChangedFields(ctx context.Context, err error, id int64, etag string) error {
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.EtagMismatch {
		return err
	}
	since, ok := user.EtagVersion(etag)
	if !ok {
		return err
	}
	// Read the log first: the user is then at least as new as the rows, so no field is missing.
	page, logErr := s.store.Log(ctx, user.LogQuery{UserID: id, Retained: true, Desc: true, MaxRows: maxMismatchRows})
	if logErr != nil {
		return err
	}
	cur, getErr := s.store.Get(ctx, id)
	if getErr != nil {
		return err
	}
	explained := *e
	explained.Metadata = maps.Clone(e.Metadata)
	explained.Metadata["etag"] = cur.Etag()
	explained.Metadata["changed_fields"] = strings.Join(user.ChangedSince(page.Rows, cur.Version-since), ",")
	return &explained
}
