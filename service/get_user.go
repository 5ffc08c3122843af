package service

import (
	"context"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// GetUser returns one user, a deleted one too. Errors: USER_NOT_FOUND, and
// INVALID_FIELD for a name in the field filter that User does not have.
func (s *Service) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	fields, err := parseFields(req.GetFields())
	if err != nil {
		return nil, err
	}
	panicIfPlanted(req.GetUserId())
	u, err := s.store.Get(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	if len(req.GetFields()) == 0 {
		// The tag is that of the whole user, so an answer with some of it has none.
		if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
			info.ResponseHeader().Set("Etag", `"`+u.Etag()+`"`)
		}
	}
	return &userv1.GetUserResponse{User: userToProto(u, fields)}, nil
}
