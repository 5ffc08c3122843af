package service

import (
	"context"
	"errors"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// UpdateUsers applies several updates, each by itself, or with atomic all or none:
// the error is then the first failing item's, or INVALID_FIELD with what is wrong
// with any of them. Where the answer would become larger than MaxMessageBytes,
// further results tell no more than user_id, version, etag and updated_at, or
// why the item failed in short.
func (s *Service) UpdateUsers(ctx context.Context, req *userv1.UpdateUsersRequest) (*userv1.UpdateUsersResponse, error) {
	var items chunk
	for _, item := range req.GetRequests() {
		var change user.Change
		err := s.checkItem(item)
		if err == nil {
			change, err = updateChange(ctx, userv1connect.UserServiceUpdateUsersProcedure, item)
		}
		items.add(change, err, 0)
	}
	results, err := s.applyItems(ctx, &items, req.GetAtomic())
	if err != nil {
		return nil, s.atomicUpdateFailure(ctx, err, req.GetRequests())
	}
	room := s.answerRoom(len(results), shortItemBytes)
	res := &userv1.UpdateUsersResponse{Results: make([]*userv1.UserResult, len(results))}
	for i := range results {
		item := req.GetRequests()[i]
		results[i].Err = s.explainMismatch(ctx, results[i].Err, item.GetUserId(), item.GetEtag())
		res.Results[i] = s.userResult(i, item.GetUserId(), &results[i], &room)
	}
	return res, nil
}

func (s *Service) atomicUpdateFailure(ctx context.Context, err error, items []*userv1.UpdateUserRequest) error {
	var failed *user.ItemError
	if !errors.As(err, &failed) {
		return err
	}
	item := items[failed.Index]
	return atomicFailure(&user.ItemError{
		Index: failed.Index,
		Err:   s.explainMismatch(ctx, failed.Err, item.GetUserId(), item.GetEtag()),
	})
}
