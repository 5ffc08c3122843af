package service

import (
	"context"
	"errors"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/user"
)

// UpdateUsers applies updates independently or, with atomic, all or none. Errors and short
// results are as for CreateUsers.
//
// An atomic request cannot have the etag of a user that an earlier item may have changed. It would fail if that item
// changed the user, and then leave no row: a caller without users.read could compare the fields of a user unnoticed.
func (s *Service) UpdateUsers(ctx context.Context, req *userv1.UpdateUsersRequest) (*userv1.UpdateUsersResponse, error) {
	var items batch.Chunk
	seen := make(map[int64]bool, len(req.GetRequests())) // users of earlier items
	for _, item := range req.GetRequests() {
		var change user.Change
		err := s.opts.Validator.Validate(item)
		if err == nil && req.GetAtomic() && item.GetEtag() != "" && seen[item.GetUserId()] {
			err = user.NewFieldErrorf("etag", "must be unset if an earlier item of an atomic request has the same user: its etag after that item is unknown")
		}
		if err == nil {
			change, err = updateChange(ctx, userv1connect.UserServiceUpdateUsersProcedure, item)
		}
		seen[item.GetUserId()] = true
		items.Add(change, err)
	}
	results, err := s.applyItems(ctx, &items, req.GetAtomic())
	if err != nil {
		return nil, s.atomicUpdateFailure(ctx, err, req.GetRequests())
	}
	remaining := batch.NewSizeBudget(s.opts.MaxMessageBytes, len(results), batch.ShortItemBytes)
	res := &userv1.UpdateUsersResponse{Results: make([]*userv1.UserResult, len(results))}
	for i := range results {
		item := req.GetRequests()[i]
		results[i].Err = s.addChangedFields(ctx, results[i].Err, item.GetUserId(), item.GetEtag())
		res.Results[i] = s.userResult(i, item.GetUserId(), &results[i], &remaining)
	}
	return res, nil
}

func (s *Service) atomicUpdateFailure(ctx context.Context, err error, items []*userv1.UpdateUserRequest) error {
	var failed *user.ItemError
	if !errors.As(err, &failed) {
		return err
	}
	item := items[failed.Index]
	return batch.NameItem(&user.ItemError{
		Index: failed.Index,
		Err:   s.addChangedFields(ctx, failed.Err, item.GetUserId(), item.GetEtag()),
	})
}
