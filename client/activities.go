package client

import (
	"context"
	"errors"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// errStop ends a stream for an iterator whose loop has ended.
var errStop = errors.New("stop")

// StreamUserActivities calls fn for each row of the log from the start of the request on: past rows, then live ones,
// until fn returns an error, which it returns, or the context ends. It returns nil after the deletion of the user, and
// with replay_only when it has caught up. After an interruption it resumes behind the last row for which fn has
// returned, so that fn is called once for each row. Errors: ErrUserNotFound, ErrPositionOutOfRange.
func (c *Client) StreamUserActivities(ctx context.Context, request *userv1.StreamUserActivitiesRequest, fn func(*userv1.UserActivity) error) error {
	next := proto.CloneOf(request)
	next.Progress = true // moves the position while no row matches, and shows that the stream is alive
	var stopped error
	err := c.mend(ctx, "StreamUserActivities", func(ctx context.Context, a *attempt) error {
		stream, err := a.rpc.StreamUserActivities(ctx, next)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		start, ok := headerPosition(stream.ResponseHeader())
		if ok && next.GetFromHead() {
			next.FromHead, next.AfterActivityId, next.Epoch = false, start.number, start.epoch
		}
		for a.receive(ctx, stream.Receive) {
			row := stream.Msg()
			if row.GetAction() != "" || request.GetProgress() {
				if stopped = fn(row); stopped != nil {
					return nil
				}
			}
			next.Since, next.FromHead = nil, false
			next.AfterActivityId, next.Epoch = row.GetActivityId(), start.epoch
		}
		return stream.Err()
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// Activities returns the rows of StreamUserActivities. An error is the last pair.
func (c *Client) Activities(ctx context.Context, request *userv1.StreamUserActivitiesRequest) iter.Seq2[*userv1.UserActivity, error] {
	return rows(func(fn func(*userv1.UserActivity) error) error { return c.StreamUserActivities(ctx, request, fn) })
}

// rows converts a stream with a callback to an iterator.
func rows[T any](stream func(func(*T) error) error) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		err := stream(func(row *T) error {
			if !yield(row, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(nil, err)
		}
	}
}

// WatchUserStatus calls fn for the current status of each user of the request, then for each change, until fn returns
// an error, which it returns, or the context ends. A change may be skipped if a newer one of the same user follows. An
// update with an error is the last one of its user. After an interruption it resumes behind the last update for which
// fn has returned. It returns nil when no user is left. Errors: ErrPositionOutOfRange.
func (c *Client) WatchUserStatus(ctx context.Context, request *userv1.WatchUserStatusRequest, fn func(*userv1.UserStatusUpdate) error) error {
	next := proto.CloneOf(request)
	next.Progress = true
	var stopped error
	err := c.mend(ctx, "WatchUserStatus", func(ctx context.Context, a *attempt) error {
		if !next.GetAll() && len(next.GetUserIds()) == 0 && len(request.GetUserIds()) > 0 {
			return nil
		}
		stream, err := a.rpc.WatchUserStatus(ctx, next)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		start, ok := headerPosition(stream.ResponseHeader())
		if ok && next.GetAll() && next.GetAfterActivityId() == 0 && next.GetEpoch() == "" {
			next.AfterActivityId, next.Epoch = start.number, start.epoch
		}
		for a.receive(ctx, stream.Receive) {
			update := stream.Msg()
			if !update.GetProgress() || request.GetProgress() {
				if stopped = fn(update); stopped != nil {
					return nil
				}
			}
			if update.GetError() != nil {
				next.UserIds = slices.DeleteFunc(next.UserIds, func(id int64) bool { return id == update.GetUserId() })
				if !next.GetAll() && len(next.GetUserIds()) == 0 {
					return nil
				}
			}
			if update.GetActivityId() > 0 || update.GetProgress() { // the error of a user that did not exist has none
				// Updates are in the order of their positions.
				next.AfterActivityId, next.Epoch = update.GetActivityId(), start.epoch
			}
		}
		if err := stream.Err(); err != nil {
			return err
		}
		return errEarlyEnd
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// StatusChanges returns the messages of WatchUserStatus. An error is the last pair.
func (c *Client) StatusChanges(ctx context.Context, request *userv1.WatchUserStatusRequest) iter.Seq2[*userv1.UserStatusUpdate, error] {
	return rows(func(fn func(*userv1.UserStatusUpdate) error) error { return c.WatchUserStatus(ctx, request, fn) })
}
