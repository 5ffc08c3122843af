package main

import (
	"context"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// watchCommand is userctl watch.
type watchCommand struct {
	following `embed:""`

	Filter      string `short:"f" help:"Filter (AIP-160). Default: all users."`
	Search      string `short:"q" help:"Text in any part of a username or an e-mail address, at least 3 letters."`
	ShowDeleted bool   `help:"Include deleted users until they are purged."`
}

// Run shows the users that match, then changes and removals.
func (c *watchCommand) Run(ctx context.Context, s *session) error {
	f, err := c.open(s)
	if err != nil {
		return err
	}
	if err := s.reach(ctx); err != nil {
		return err
	}
	err = s.client.WatchUsers(ctx, &userv1.WatchUsersRequest{
		Filter: filterOf(c.Filter, c.Search), ShowDeleted: c.ShowDeleted, Progress: true,
		AfterActivityId: f.position.Position, Epoch: f.position.Epoch,
	}, func(m *userv1.WatchUsersResponse) error {
		if !m.GetProgress() {
			if err := f.show(ctx, m, watchRow(m)...); err != nil {
				return err
			}
		}
		return f.moved(position{Epoch: m.GetEpoch(), Position: m.GetActivityId()})
	})
	return f.end(ctx, err)
}

func watchRow(m *userv1.WatchUsersResponse) []string {
	at := idText(m.GetActivityId())
	switch {
	case m.GetSynced():
		return []string{at, "synced"}
	case m.GetRemoved():
		return []string{at, "removed", idText(m.GetUserId())}
	default:
		row := userRow(m.GetUser())
		return append([]string{at, "user"}, row[:4]...)
	}
}
