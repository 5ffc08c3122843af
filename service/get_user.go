package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// GetUser returns one user, a deleted one too. Errors: USER_NOT_FOUND, and
// INVALID_FIELD for a name in the field filter that User does not have.
func (s *Service) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	fields, err := parseFields(req.GetFields())
	if err != nil {
		return nil, err
	}
	u, err := s.store.Get(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &userv1.GetUserResponse{User: userToProto(u, fields)}, nil
}
