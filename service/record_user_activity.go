package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// RecordUserActivity appends a row recorded by an application.
func (s *Service) RecordUserActivity(
	ctx context.Context, req *userv1.RecordUserActivityRequest,
) (*userv1.RecordUserActivityResponse, error) {
	op, err := user.NewRecord(req.GetUserId(), req.GetAction(), req.GetDetails())
	if err != nil {
		return nil, err
	}
	key, err := idempotencyKey(ctx, userv1connect.UserServiceRecordUserActivityProcedure, req)
	if err != nil {
		return nil, err
	}
	result, err := s.applyOne(ctx, user.Change{Op: op, By: author(ctx, req.GetRequestId()), IdempotencyKey: key})
	if err != nil {
		return nil, err
	}
	s.setPosition(ctx, result.Position)
	return &userv1.RecordUserActivityResponse{Activity: activityToProto(&result.Rows[0])}, nil
}
