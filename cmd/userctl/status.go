package main

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// statusCommand is userctl status.
type statusCommand struct {
	Get   statusGetCommand   `cmd:"" help:"Show the statuses of users."`
	Set   statusSetCommand   `cmd:"" help:"Set the status of a user."`
	Sync  statusSyncCommand  `cmd:"" help:"Set the statuses in lines of standard input over one stream."`
	Watch statusWatchCommand `cmd:"" help:"Show statuses, then their changes until Ctrl-C."`
}

// statusGetCommand is userctl status get.
type statusGetCommand struct {
	User []string `arg:"" help:"Ids, e-mail addresses or usernames."`
}

// Run shows statuses.
func (c *statusGetCommand) Run(ctx context.Context, s *session) error {
	ids, err := s.userIDs(ctx, c.User)
	if err != nil {
		return err
	}
	users, missing, err := s.client.BatchGetUsers(ctx, ids, "user_id", "username", "status")
	if err != nil {
		return err
	}
	rows := newList(s.output, func(u *userv1.User) []string {
		return []string{idText(u.GetUserId()), u.GetUsername(), statusText(u.GetStatus())}
	}, "USER ID", "USERNAME", "STATUS")
	for _, u := range users {
		if err := rows.add(u); err != nil {
			return err
		}
	}
	if err := rows.end(); err != nil || len(missing) == 0 {
		return err
	}
	return newNotFoundError("user_id", idText(missing[0]))
}

// statusSetCommand is userctl status set.
type statusSetCommand struct {
	User   string `arg:"" help:"Id, e-mail address or username."`
	Status string `arg:"" complete:"active,inactive,suspended" help:"active, inactive or suspended."`
}

// Run sets a status.
func (c *statusSetCommand) Run(ctx context.Context, s *session) error {
	status, err := parseStatus(c.Status)
	if err != nil {
		return err
	}
	id, err := s.userID(ctx, c.User)
	if err != nil {
		return err
	}
	update, err := s.client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: status})
	if err != nil {
		return err
	}
	rows := newList(s.output, statusRow, "TIME", "ACTIVITY ID", "USER ID", "STATUS")
	if err := rows.add(update); err != nil {
		return err
	}
	return rows.end()
}

// statusWatchCommand is userctl status watch.
type statusWatchCommand struct {
	User []string `arg:"" optional:"" help:"Ids, e-mail addresses or usernames (default: all users, without their current statuses)."`
}

// Run shows statuses and their changes.
func (c *statusWatchCommand) Run(ctx context.Context, s *session) error {
	ids, err := s.userIDs(ctx, c.User)
	if err != nil {
		return err
	}
	if err := s.reach(ctx); err != nil {
		return err
	}
	var failed error // of the last user
	left := len(ids)
	err = s.client.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{UserIds: ids, All: len(ids) == 0}, func(update *userv1.UserStatusUpdate) error {
		if update.GetError() != nil {
			failed = &client.Error{
				Method: "WatchUserStatus", Code: connect.Code(update.GetError().GetCode()), Reason: update.GetFailure().GetReason(),
				Message: update.GetError().GetMessage(),
			}
			left--
		}
		if err := s.event(update, statusRow(update)...); err != nil {
			return err
		}
		if failed != nil && left == 0 {
			return failed // no user is left
		}
		return nil
	})
	return untilInterrupted(ctx, err)
}

func statusRow(update *userv1.UserStatusUpdate) []string {
	status := statusText(update.GetStatus())
	if update.GetError() != nil {
		status = update.GetError().GetMessage()
	}
	return []string{timeText(update.GetTimestamp()), idText(update.GetActivityId()), idText(update.GetUserId()), status}
}

// userIDs returns the ids of users.
func (s *session) userIDs(ctx context.Context, names []string) ([]int64, error) {
	var ids []int64
	for _, name := range names {
		id, err := s.userID(ctx, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
