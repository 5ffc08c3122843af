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

// BatchUpdateUsers applies updates independently, in the order received. Beyond MaxStreamItems
// items it fails with TOO_MANY_ITEMS. Items applied before a failure stay applied, so a client
// that retries the stream must set request ids or etags. Other errors of the call:
// SERVER_DRAINING and errors that affect all writes.
func (s *Service) BatchUpdateUsers(
	ctx context.Context, stream *connect.ClientStream[userv1.UpdateUserRequest],
) (*userv1.BatchUpdateUsersResponse, error) {
	sum := updateSum{service: s, failures: batch.Failures{
		Log: s.log, WithTexts: true,
		Remaining: batch.NewSizeBudget(s.opts.MaxMessageBytes, batch.MaxFailures, 2*batch.ShortItemBytes),
	}}
	p := &batch.Pipeline{
		Store: s.store, Feed: s.feed, Limit: s.opts.MaxStreamItems,
		OnResult: func(index int, result *user.Result) { sum.add(ctx, index, result) },
		Memory:   budget.FromContext(ctx),
	}
	position, err := batch.Receive(ctx, p, stream, func(item *userv1.UpdateUserRequest) (user.Change, error) {
		sum.targets = append(sum.targets, itemTarget{id: item.GetUserId(), etag: item.GetEtag()})
		if err := s.opts.Validator.Validate(item); err != nil {
			return user.Change{}, err
		}
		return updateChange(ctx, userv1connect.UserServiceBatchUpdateUsersProcedure, item)
	})
	if err != nil {
		return nil, err
	}
	s.setPositionOf(stream.Conn(), position)
	return &userv1.BatchUpdateUsersResponse{
		UpdatedCount: sum.applied,
		Errors:       sum.failures.Texts,
		Failures:     sum.failures.Listed,
		FailedCount:  sum.failures.Count,
	}, nil
}

type itemTarget struct {
	id   int64
	etag string
}

type updateSum struct {
	service  *Service
	targets  []itemTarget // of items without a result yet, oldest first
	applied  int32
	failures batch.Failures
}

func (sum *updateSum) add(ctx context.Context, index int, result *user.Result) {
	target := sum.targets[0]
	sum.targets = sum.targets[1:]
	if result.Err == nil {
		sum.applied++
		return
	}
	err := result.Err
	if !sum.failures.Full() {
		err = sum.service.addChangedFields(ctx, err, target.id, target.etag)
	}
	sum.failures.Add(index, target.id, err)
}
