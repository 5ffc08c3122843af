package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/fieldmask"
	"github.com/yourorg/userservice/service/reqinfo"
)

// GetUser returns a user, including a deleted one. Errors: USER_NOT_FOUND, INVALID_FIELD.
func (s *Service) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	fields, err := fieldmask.Select(req.GetFields())
	if err != nil {
		return nil, err
	}
	u, err := s.store.Get(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	res := &userv1.GetUserResponse{User: userToProto(u, fields)}
	if len(req.GetFields()) == 0 {
		// The etag is that of the whole user, so a partial response has none.
		reqinfo.HeaderOfResponse(ctx)["Etag"] = []string{`"` + res.GetUser().GetEtag() + `"`}
	}
	return res, nil
}
