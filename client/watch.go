package client

import (
	"context"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// WatchUsers calls fn for each message of WatchUsers: the users that match, synced, then changes and removals, until fn
// returns an error, which it returns, or the context ends. After an interruption it resumes behind the last message for
// which fn has returned, and synced is repeated. Mirror keeps a copy of the users. Errors: ErrPositionOutOfRange,
// ErrInvalidField.
func (c *Client) WatchUsers(ctx context.Context, request *userv1.WatchUsersRequest, fn func(*userv1.WatchUsersResponse) error) error {
	next := proto.CloneOf(request)
	next.Progress = true // shows that the stream is alive
	var stopped error
	err := c.mend(ctx, "WatchUsers", func(ctx context.Context, a *attempt) error {
		stream, err := a.rpc.WatchUsers(ctx, next)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		for a.receive(ctx, stream.Receive) {
			message := stream.Msg()
			if !message.GetProgress() || request.GetProgress() {
				if stopped = fn(message); stopped != nil {
					return nil
				}
			}
			next.AfterActivityId = message.GetActivityId()
			if message.GetEpoch() != "" {
				next.Epoch = message.GetEpoch()
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
