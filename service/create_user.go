package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// CreateUser creates a user. With validate_only it stores nothing and returns the user without
// an id. Errors: INVALID_FIELD, USERNAME_TAKEN, EMAIL_TAKEN, REQUEST_ID_REUSED.
func (s *Service) CreateUser(ctx context.Context, req *userv1.CreateUserRequest) (*userv1.CreateUserResponse, error) {
	change, err := createChange(ctx, userv1connect.UserServiceCreateUserProcedure, req, user.ConflictFail)
	if err != nil {
		return nil, err
	}
	result, err := s.applyOne(ctx, change)
	if err != nil {
		return nil, err
	}
	s.setPosition(ctx, result.Position)
	return &userv1.CreateUserResponse{User: resultToProto(&result)}, nil
}

// createChange converts a request, or an item of one, to a change. procedure is the RPC called.
func createChange(
	ctx context.Context, procedure string, req *userv1.CreateUserRequest, policy user.Conflict,
) (user.Change, error) {
	op, err := user.NewCreate(profileFromProto(req))
	if err != nil {
		return user.Change{}, err
	}
	change := user.Change{
		Op: op, By: author(ctx, req.GetRequestId()),
		OnConflict: policy, ValidateOnly: req.GetValidateOnly(),
	}
	if !change.ValidateOnly {
		change.IdempotencyKey, err = idempotencyKey(ctx, procedure, req, byte(policy))
	}
	return change, err
}

// resultToProto converts the user of a successful change. A user that was not stored has no id,
// times, version and etag.
func resultToProto(result *user.Result) *userv1.User {
	if result.Outcome == user.OutcomeValid {
		return userToProto(result.User, user.WritableFields())
	}
	return userToProto(result.User, user.APIFields())
}
