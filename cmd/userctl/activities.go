package main

import (
	"context"
	"iter"
	"slices"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// activitiesCommand is userctl activities.
type activitiesCommand struct {
	User   string   `arg:"" optional:"" help:"Id, e-mail address or username (default: all users)."`
	Action []string `help:"Only these actions, such as user.created; comma-separated, repeatable."`
	Limit  int      `default:"50" help:"Number of rows, the newest ones; 0: all that are retained."`
	Follow bool     `short:"F" help:"Continue with new rows until Ctrl-C."`
}

// Run shows activities, the oldest first.
func (c *activitiesCommand) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return newUsageError("--limit: must not be negative")
	}
	var id int64
	if c.User != "" {
		var err error
		if id, err = s.userID(ctx, c.User); err != nil {
			return err
		}
	}
	rows, err := c.newest(ctx, s, id)
	if err != nil {
		return err
	}
	if c.Follow {
		if err := s.reach(ctx); err != nil {
			return err
		}
		return c.follow(ctx, s, id, rows)
	}
	if c.Limit == 0 {
		return c.all(ctx, s, id)
	}
	shown := s.activityList()
	for _, row := range rows {
		if err := shown.add(row); err != nil {
			return err
		}
	}
	return shown.end()
}

// newest returns the newest rows, the oldest first; none without a limit.
func (c *activitiesCommand) newest(ctx context.Context, s *session, id int64) ([]*userv1.UserActivity, error) {
	if c.Limit == 0 {
		return nil, nil
	}
	rows, err := take(s.client.PastActivities(ctx, &userv1.ListUserActivitiesRequest{
		UserId: id, Actions: c.Action, PageSize: pageSize(c.Limit),
	}), c.Limit)
	slices.Reverse(rows)
	return rows, err
}

// all shows all rows.
func (c *activitiesCommand) all(ctx context.Context, s *session, id int64) error {
	shown := s.activityList()
	for row, err := range s.client.PastActivities(ctx, &userv1.ListUserActivitiesRequest{
		UserId: id, Actions: c.Action, PageSize: maxPage, Order: userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST,
	}) {
		if err != nil {
			return shown.endWith(err)
		}
		if err := shown.add(row); err != nil {
			return err
		}
	}
	return shown.end()
}

// follow shows the newest rows, then those after them.
func (c *activitiesCommand) follow(ctx context.Context, s *session, id int64, newest []*userv1.UserActivity) error {
	request := &userv1.StreamUserActivitiesRequest{UserId: id, Actions: c.Action}
	for _, row := range newest {
		request.AfterActivityId = row.GetActivityId()
		if err := s.activityEvent(row); err != nil {
			return err
		}
	}
	return untilInterrupted(ctx, s.client.StreamUserActivities(ctx, request, s.activityEvent))
}

// untilInterrupted returns nil for the error of a stream that Ctrl-C has ended.
func untilInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C is how these commands end
	}
	return err
}

func (s *session) activityEvent(row *userv1.UserActivity) error {
	return s.event(row, activityRow(row)...)
}

func (s *session) activityList() *list[*userv1.UserActivity] {
	return newList(s.output, activityRow, "ACTIVITY ID", "TIME", "USER ID", "ACTION", "DETAILS")
}

func activityRow(row *userv1.UserActivity) []string {
	return []string{
		idText(row.GetActivityId()), timeText(row.GetTimestamp()), idText(row.GetUserId()), row.GetAction(), mapText(row.GetDetails()),
	}
}

// take returns the first rows.
func take[T any](rows iter.Seq2[T, error], limit int) ([]T, error) {
	var taken []T
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		if taken = append(taken, row); len(taken) == limit {
			break
		}
	}
	return taken, nil
}
