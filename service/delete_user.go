package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// DeleteUser soft-deletes a user, which is purged after the retention time. Errors:
// USER_NOT_FOUND, USER_DELETED, ETAG_MISMATCH, REQUEST_ID_REUSED.
func (s *Service) DeleteUser(ctx context.Context, req *userv1.DeleteUserRequest) (*userv1.DeleteUserResponse, error) {
	key, err := idempotencyKey(ctx, userv1connect.UserServiceDeleteUserProcedure, req)
	if err != nil {
		return nil, err
	}
	op := &user.Delete{ID: req.GetUserId(), Etag: req.GetEtag(), Retention: s.opts.Retention}
	result, err := s.applyOne(ctx, user.Change{Op: op, By: author(ctx, req.GetRequestId()), IdempotencyKey: key})
	if err != nil {
		return nil, s.addChangedFields(ctx, err, req.GetUserId(), req.GetEtag())
	}
	s.setPosition(ctx, result.Position)
	return &userv1.DeleteUserResponse{User: userToProto(result.User, user.APIFields())}, nil
}
