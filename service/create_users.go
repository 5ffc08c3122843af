package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// CreateUsers creates several users, each by itself, or with atomic all or none: the
// error is then the first failing item's, or INVALID_FIELD with what is wrong with
// any of them. Where the answer would become larger than MaxMessageBytes, further
// results tell no more than user_id, version, etag and updated_at, or why the
// item failed in short.
func (s *Service) CreateUsers(ctx context.Context, req *userv1.CreateUsersRequest) (*userv1.CreateUsersResponse, error) {
	policy := conflictFromProto(req.GetConflictPolicy())
	var items chunk
	for _, item := range req.GetRequests() {
		var change user.Change
		err := s.checkItem(item)
		if err == nil {
			change, err = createChange(ctx, userv1connect.UserServiceCreateUsersProcedure, item, policy)
		}
		items.add(change, err, 0)
	}
	results, err := s.applyItems(ctx, &items, req.GetAtomic())
	if err != nil {
		return nil, atomicFailure(err)
	}
	room := s.answerRoom(len(results), shortItemBytes)
	res := &userv1.CreateUsersResponse{Results: make([]*userv1.UserResult, len(results))}
	for i := range results {
		res.Results[i] = s.userResult(i, 0, &results[i], &room)
	}
	return res, nil
}

// applyItems applies the items of a unary batch and returns one result for each.
func (s *Service) applyItems(ctx context.Context, items *chunk, atomic bool) ([]user.Result, error) {
	if atomic {
		if err := items.refusal(); err != nil {
			return nil, err
		}
	}
	items.submit(ctx, s.store, atomic)
	results, err := items.results(ctx)
	if err != nil {
		return nil, err
	}
	if position := newest(0, results); position > 0 {
		s.answerReflects(ctx, position)
	}
	return results, nil
}
