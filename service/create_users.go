package service

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// CreateUsers creates users independently or, with atomic, all or none. The error of an atomic
// call is that of the first failing item, or INVALID_FIELD with the violations of all items.
// Beyond MaxMessageBytes results are short: user_id, version, etag and updated_at of a user, or
// code, reason and the start of the message of a failure.
func (s *Service) CreateUsers(ctx context.Context, req *userv1.CreateUsersRequest) (*userv1.CreateUsersResponse, error) {
	policy := conflictFromProto(req.GetConflictPolicy())
	var items chunk
	for _, item := range req.GetRequests() {
		var change user.Change
		err := s.opts.Validator.Validate(item)
		if err == nil {
			change, err = createChange(ctx, userv1connect.UserServiceCreateUsersProcedure, item, policy)
		}
		items.add(change, err, 0)
	}
	results, err := s.applyItems(ctx, &items, req.GetAtomic())
	if err != nil {
		return nil, atomicFailure(err)
	}
	remaining := s.newSizeBudget(len(results), shortItemBytes)
	res := &userv1.CreateUsersResponse{Results: make([]*userv1.UserResult, len(results))}
	for i := range results {
		res.Results[i] = s.userResult(i, 0, &results[i], &remaining)
	}
	return res, nil
}

func (s *Service) applyItems(ctx context.Context, items *chunk, atomic bool) ([]user.Result, error) {
	if atomic {
		if err := items.invalid(); err != nil {
			return nil, err
		}
	}
	items.submit(ctx, s.store, atomic, s.opts.MaxMessageBytes)
	results, err := items.results(ctx)
	if err != nil {
		return nil, err
	}
	if position := newest(0, results); position > 0 {
		s.setPosition(ctx, position)
	}
	return results, nil
}
