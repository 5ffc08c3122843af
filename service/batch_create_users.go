package service

import (
	"context"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// createdResultBytes is the most that one result takes in the answer.
const createdResultBytes = 14

// BatchCreateUsers imports users, each by itself, in the order received. It takes
// MaxStreamItems items, or fewer where the results of so many would not fit half
// a message; with one more it ends with TOO_MANY_ITEMS. Whenever it fails, items
// that were applied before stay applied: a caller that may have to repeat an import
// gives its items request ids. Further errors: SERVER_DRAINING, and what keeps the
// store from writing at all; everything else is the failure of an item.
func (s *Service) BatchCreateUsers(
	ctx context.Context, stream *connect.ClientStream[userv1.BatchCreateUsersRequest],
) (*userv1.BatchCreateUsersResponse, error) {
	limit := min(s.opts.MaxStreamItems, s.opts.MaxMessageBytes/2/createdResultBytes)
	sum := importSum{service: s, room: s.answerRoom(limit, createdResultBytes) - maxListed*shortItemBytes}
	in := &intake{service: s, settle: sum.add}
	err := receiveAll(ctx, in, stream, limit, func(item *userv1.BatchCreateUsersRequest) (user.Change, error) {
		return s.importChange(ctx, item)
	})
	if err != nil {
		return nil, err
	}
	s.answerReflects(ctx, in.position)
	sum.res.FailedCount = sum.failures.count
	sum.res.Failures = sum.failures.listed
	return &sum.res, nil
}

func (s *Service) importChange(ctx context.Context, item *userv1.BatchCreateUsersRequest) (user.Change, error) {
	if item.GetUser() == nil {
		return user.Change{}, user.NewFieldErrorf("user", "must be set")
	}
	if err := s.checkItem(item); err != nil {
		return user.Change{}, err
	}
	change, err := createChange(ctx, userv1connect.UserServiceBatchCreateUsersProcedure,
		item.GetUser(), conflictFromProto(item.GetConflictPolicy()))
	if e, ok := user.AsError(err); ok {
		return user.Change{}, e.WithFieldPrefix("user")
	}
	return change, err
}

// importSum gathers the answer to an import.
type importSum struct {
	service  *Service
	res      userv1.BatchCreateUsersResponse
	failures failureList
	room     answerRoom
}

func (sum *importSum) add(index int, result *user.Result) {
	out := &userv1.BatchCreateUsersResult{Outcome: outcomeToProto(result.Outcome)}
	switch {
	case result.Err != nil:
		out.Outcome = userv1.ItemOutcome_ITEM_OUTCOME_FAILED
		sum.failures.count++
		if !sum.failures.full() {
			sum.failures.add(sum.service.itemFailure(index, 0, result.Err), false, &sum.room)
		}
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
	case user.OutcomeFailed, user.OutcomeValid: // counted above, or nothing was done
	}
}
