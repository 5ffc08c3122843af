package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// UndeleteUser reverts a deletion until the purge time of the user. Errors:
// USER_NOT_FOUND, USER_NOT_DELETED, ETAG_MISMATCH, REQUEST_ID_REUSED.
func (s *Service) UndeleteUser(ctx context.Context, req *userv1.UndeleteUserRequest) (*userv1.UndeleteUserResponse, error) {
	key, err := idempotencyKey(ctx, userv1connect.UserServiceUndeleteUserProcedure, req)
	if err != nil {
		return nil, err
	}
	op := &user.Undelete{ID: req.GetUserId(), Etag: req.GetEtag()}
	result, err := s.applyOne(ctx, user.Change{Op: op, By: author(ctx, req.GetRequestId()), IdempotencyKey: key})
	if err != nil {
		return nil, s.addChangedFields(ctx, err, req.GetUserId(), req.GetEtag())
	}
	s.setPosition(ctx, result.Position)
	return &userv1.UndeleteUserResponse{User: userToProto(result.User, user.APIFields())}, nil
}
