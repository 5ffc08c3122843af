package service

import (
	"context"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/user"
)

// CreateUsers creates users independently or, with atomic, all or none. The error of an atomic
// call is that of the first failing item, or INVALID_FIELD with the violations of all items.
// Beyond MaxMessageBytes results are short: user_id, version, etag and updated_at of a user, or
// code, reason and the start of the message of a failure.
func (s *Service) CreateUsers(ctx context.Context, req *userv1.CreateUsersRequest) (*userv1.CreateUsersResponse, error) {
	policy := conflictFromProto(req.GetConflictPolicy())
	var items batch.Chunk
	for _, item := range req.GetRequests() {
		var change user.Change
		err := s.opts.Validator.Validate(item)
		if err == nil {
			change, err = createChange(ctx, userv1connect.UserServiceCreateUsersProcedure, item, policy)
		}
		items.Add(change, err)
	}
	results, err := s.applyItems(ctx, &items, req.GetAtomic())
	if err != nil {
		return nil, batch.NameItem(err)
	}
	remaining := batch.NewSizeBudget(s.opts.MaxMessageBytes, len(results), batch.ShortItemBytes)
	res := &userv1.CreateUsersResponse{Results: make([]*userv1.UserResult, len(results))}
	for i := range results {
		res.Results[i] = s.userResult(i, 0, &results[i], &remaining)
	}
	return res, nil
}

func (s *Service) applyItems(ctx context.Context, items *batch.Chunk, atomic bool) ([]user.Result, error) {
	results, position, err := items.Apply(ctx, s.store, atomic, s.opts.MaxMessageBytes)
	if position > 0 {
		s.setPosition(ctx, position)
	}
	return results, err
}

// userResult converts the result of one item. Beyond the budget it is short.
func (s *Service) userResult(index int, userID int64, result *user.Result, remaining *batch.SizeBudget) *userv1.UserResult {
	out := &userv1.UserResult{Outcome: outcomeToProto(result.Outcome)}
	if result.Err != nil {
		out.Outcome = userv1.ItemOutcome_ITEM_OUTCOME_FAILED
		out.Failure = batch.NewFailure(s.log, index, userID, result.Err)
		if !remaining.Reserve(proto.Size(out.GetFailure())) {
			batch.Shorten(out.GetFailure())
		}
		return out
	}
	out.User = resultToProto(result)
	if full := out.GetUser(); result.Summary || !remaining.Reserve(proto.Size(full)) {
		out.User = &userv1.User{
			UserId: full.GetUserId(), Version: full.GetVersion(), Etag: full.GetEtag(), UpdatedAt: full.GetUpdatedAt(),
		}
	}
	return out
}
