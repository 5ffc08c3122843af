package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// PurgeUser erases a deleted user, as the janitor does at its purge time. Errors: USER_NOT_FOUND,
// USER_NOT_DELETED, ETAG_MISMATCH, REQUEST_ID_REUSED.
func (s *Service) PurgeUser(ctx context.Context, req *userv1.PurgeUserRequest) (*userv1.PurgeUserResponse, error) {
	key, err := idempotencyKey(ctx, userv1connect.UserServicePurgeUserProcedure, req)
	if err != nil {
		return nil, err
	}
	start := &user.StartPurge{ID: req.GetUserId(), Etag: req.GetEtag(), Now: true}
	result, err := user.ApplyPurge(ctx, s.store, start, reserving(ctx, user.Change{By: author(ctx, req.GetRequestId()), IdempotencyKey: key}))
	if err != nil {
		return nil, s.addChangedFields(ctx, err, req.GetUserId(), req.GetEtag())
	}
	s.setPosition(ctx, result.Position)
	return &userv1.PurgeUserResponse{ActivityId: result.Position}, nil
}
