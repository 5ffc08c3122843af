package main

import (
	"context"
	"iter"
	"slices"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// activitiesCommand is userctl activities.
type activitiesCommand struct {
	following `embed:""`

	User   string   `arg:"" optional:"" help:"Id, e-mail address or username (default: all users)."`
	Action []string `help:"Only these actions, such as user.created; comma-separated, repeatable."`
	Limit  int      `default:"50" help:"Number of rows, the newest ones; 0: all that are retained."`
	Follow bool     `short:"F" help:"Continue with new rows until Ctrl-C; needed by --after, --exec and --state."`
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
	if c.Follow {
		return c.follow(ctx, s, id)
	}
	if c.following != (following{}) {
		return newUsageError("--after, --exec and --state need --follow")
	}
	s.page()
	if c.Limit == 0 {
		return c.all(ctx, s, id)
	}
	rows, err := c.newest(ctx, s, id)
	if err != nil {
		return err
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

// follow shows the rows after a position, or else the newest ones, then those after them.
func (c *activitiesCommand) follow(ctx context.Context, s *session, id int64) error {
	f, err := c.open(s)
	if err != nil {
		return err
	}
	if err := s.reach(ctx); err != nil {
		return err
	}
	show := func(row *userv1.UserActivity) error {
		if row.GetAction() != "" { // else it is a progress row
			if err := f.show(ctx, row, activityRow(row)...); err != nil {
				return err
			}
		}
		return f.moved(position{Epoch: s.epoch.get(), Position: row.GetActivityId()})
	}
	if !f.resumes() {
		newest, err := c.newest(ctx, s, id)
		if err != nil {
			return err
		}
		for _, row := range newest {
			if err := show(row); err != nil {
				return f.end(ctx, err)
			}
		}
	}
	return f.end(ctx, s.client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{
		UserId: id, Actions: c.Action, AfterActivityId: f.position.Position, Epoch: f.position.Epoch, Progress: true,
	}, show))
}

// untilInterrupted returns nil for the error of a stream that Ctrl-C has ended.
func untilInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C is how these commands end
	}
	return err
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
