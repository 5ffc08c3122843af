package service

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// UpdateUserStatus sets the status of a user.
func (s *Service) UpdateUserStatus(
	ctx context.Context, req *userv1.UpdateUserStatusRequest,
) (*userv1.UpdateUserStatusResponse, error) {
	op, err := setStatusOp(req.GetUserId(), req.GetStatus(), req.GetTimestamp())
	if err != nil {
		return nil, err
	}
	key, err := idempotencyKey(ctx, userv1connect.UserServiceUpdateUserStatusProcedure, req)
	if err != nil {
		return nil, err
	}
	result, err := s.applyOne(ctx, user.Change{Op: op, By: author(ctx, req.GetRequestId()), IdempotencyKey: key})
	if err != nil {
		return nil, err
	}
	s.setPosition(ctx, result.Position)
	return &userv1.UpdateUserStatusResponse{StatusUpdate: s.statusUpdate(result.User.CurrentStatus())}, nil
}

func setStatusOp(id int64, status userv1.UserStatus, at *timestamppb.Timestamp) (user.Op, error) {
	op := &user.SetStatus{ID: id, Status: user.Status(status)}
	if at == nil {
		return op, nil
	}
	var err error
	op.Time, err = timeFromProto("timestamp", at)
	return op, err
}
