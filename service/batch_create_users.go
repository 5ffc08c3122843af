package service

import (
	"context"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/user"
)

// createdResultBytes is the maximum encoded size of one result.
const createdResultBytes = 14

// BatchCreateUsers imports users independently, in the order received. Beyond MaxStreamItems
// items, or fewer if their results exceed half a message, it fails with TOO_MANY_ITEMS. Items
// applied before a failure stay applied, so a client that retries an import must set request
// ids. Other errors of the call: SERVER_DRAINING and errors that affect all writes.
func (s *Service) BatchCreateUsers(
	ctx context.Context, stream *connect.ClientStream[userv1.BatchCreateUsersRequest],
) (*userv1.BatchCreateUsersResponse, error) {
	limit := min(s.opts.MaxStreamItems, s.opts.MaxMessageBytes/2/createdResultBytes)
	sum := importSum{failures: batch.Failures{
		Log: s.log, Remaining: batch.NewSizeBudget(s.opts.MaxMessageBytes, limit, createdResultBytes) - batch.MaxFailures*batch.ShortItemBytes,
	}}
	p := &batch.Pipeline{Store: s.store, Feed: s.feed, Limit: limit, OnResult: sum.add, Memory: budget.FromContext(ctx)}
	position, err := batch.Receive(ctx, p, stream, func(item *userv1.BatchCreateUsersRequest) (user.Change, error) {
		return s.importChange(ctx, item)
	})
	if err != nil {
		return nil, err
	}
	s.setPositionOf(stream.Conn(), position)
	sum.res.FailedCount = sum.failures.Count
	sum.res.Failures = sum.failures.Listed
	return &sum.res, nil
}

func (s *Service) importChange(ctx context.Context, item *userv1.BatchCreateUsersRequest) (user.Change, error) {
	if item.GetUser() == nil {
		return user.Change{}, user.NewFieldErrorf("user", "must be set")
	}
	if err := s.opts.Validator.Validate(item); err != nil {
		return user.Change{}, err
	}
	change, err := createChange(ctx, userv1connect.UserServiceBatchCreateUsersProcedure,
		item.GetUser(), conflictFromProto(item.GetConflictPolicy()))
	if e, ok := user.AsError(err); ok {
		return user.Change{}, e.WithFieldPrefix("user")
	}
	return change, err
}

type importSum struct {
	res      userv1.BatchCreateUsersResponse
	failures batch.Failures
}

func (sum *importSum) add(index int, result *user.Result) {
	out := &userv1.BatchCreateUsersResult{Outcome: outcomeToProto(result.Outcome)}
	switch {
	case result.Err != nil:
		out.Outcome = userv1.ItemOutcome_ITEM_OUTCOME_FAILED
		sum.failures.Add(index, 0, result.Err)
	case result.Outcome != user.OutcomeValid:
		out.UserId = result.User.ID
	}
	sum.res.Results = append(sum.res.GetResults(), out)
	switch result.Outcome {
	case user.OutcomeCreated:
		sum.res.CreatedCount++
	case user.OutcomeUpdated:
		sum.res.UpdatedCount++
	case user.OutcomeUnchanged:
		sum.res.UnchangedCount++
	case user.OutcomeFailed, user.OutcomeValid: // failures are counted above
	}
}
