package service

import (
	"context"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// BatchUpdateUsers applies updates, each by itself, in the order received. It takes
// MaxStreamItems items; with one more it ends with TOO_MANY_ITEMS. Whenever it
// fails, items that were applied before stay applied: a caller that may have to
// repeat the stream gives its items request ids or etags. Further errors:
// SERVER_DRAINING, and what keeps the store from writing at all; everything else is
// the failure of an item.
func (s *Service) BatchUpdateUsers(
	ctx context.Context, stream *connect.ClientStream[userv1.UpdateUserRequest],
) (*userv1.BatchUpdateUsersResponse, error) {
	sum := updateSum{service: s, room: s.answerRoom(maxListed, 2*shortItemBytes)}
	in := &intake{service: s, settle: func(index int, result *user.Result) { sum.add(ctx, index, result) }}
	err := receiveAll(ctx, in, stream, s.opts.MaxStreamItems, func(item *userv1.UpdateUserRequest) (user.Change, error) {
		panicIfPlanted(item.GetUserId())
		sum.named = append(sum.named, namedItem{id: item.GetUserId(), etag: item.GetEtag()})
		if err := s.checkItem(item); err != nil {
			return user.Change{}, err
		}
		return updateChange(ctx, userv1connect.UserServiceBatchUpdateUsersProcedure, item)
	})
	if err != nil {
		return nil, err
	}
	s.answerReflects(ctx, in.position)
	return &userv1.BatchUpdateUsersResponse{
		UpdatedCount: sum.applied,
		Errors:       sum.failures.texts,
		Failures:     sum.failures.listed,
		FailedCount:  sum.failures.count,
	}, nil
}

// namedItem is what an item said of its user.
type namedItem struct {
	id   int64
	etag string
}

// updateSum gathers the answer to a stream of updates.
type updateSum struct {
	service  *Service
	named    []namedItem // items that are not settled yet, oldest first
	applied  int32
	failures failureList
	room     answerRoom
}

func (sum *updateSum) add(ctx context.Context, index int, result *user.Result) {
	named := sum.named[0]
	sum.named = sum.named[1:]
	if result.Err == nil {
		sum.applied++
		return
	}
	sum.failures.count++
	if sum.failures.full() {
		return
	}
	err := sum.service.explainMismatch(ctx, result.Err, named.id, named.etag)
	sum.failures.add(sum.service.itemFailure(index, named.id, err), true, &sum.room)
}
