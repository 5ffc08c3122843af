package service

import (
	"context"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// BatchUpdateUsers applies updates independently, in the order received. Beyond MaxStreamItems
// items it fails with TOO_MANY_ITEMS. Items applied before a failure stay applied, so a client
// that retries the stream must set request ids or etags. Other errors of the call:
// SERVER_DRAINING and errors that affect all writes.
func (s *Service) BatchUpdateUsers(
	ctx context.Context, stream *connect.ClientStream[userv1.UpdateUserRequest],
) (*userv1.BatchUpdateUsersResponse, error) {
	sum := updateSum{service: s, remaining: s.newSizeBudget(maxListed, 2*shortItemBytes)}
	p := &pipeline{service: s, onResult: func(index int, result *user.Result) { sum.add(ctx, index, result) }}
	err := receiveAll(ctx, p, stream, s.opts.MaxStreamItems, func(item *userv1.UpdateUserRequest) (user.Change, error) {
		sum.targets = append(sum.targets, itemTarget{id: item.GetUserId(), etag: item.GetEtag()})
		if err := s.opts.Validator.Validate(item); err != nil {
			return user.Change{}, err
		}
		return updateChange(ctx, userv1connect.UserServiceBatchUpdateUsersProcedure, item)
	})
	if err != nil {
		return nil, err
	}
	s.setPosition(ctx, p.position)
	return &userv1.BatchUpdateUsersResponse{
		UpdatedCount: sum.applied,
		Errors:       sum.failures.texts,
		Failures:     sum.failures.listed,
		FailedCount:  sum.failures.count,
	}, nil
}

type itemTarget struct {
	id   int64
	etag string
}

type updateSum struct {
	service   *Service
	targets   []itemTarget // of items without a result yet, oldest first
	applied   int32
	failures  failureList
	remaining sizeBudget
}

func (sum *updateSum) add(ctx context.Context, index int, result *user.Result) {
	target := sum.targets[0]
	sum.targets = sum.targets[1:]
	if result.Err == nil {
		sum.applied++
		return
	}
	sum.failures.count++
	if sum.failures.full() {
		return
	}
	err := sum.service.addChangedFields(ctx, result.Err, target.id, target.etag)
	sum.failures.add(sum.service.itemFailure(index, target.id, err), true, &sum.remaining)
}
