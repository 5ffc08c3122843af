package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// createCommand is userctl create.
type createCommand struct {
	Username string            `arg:"" help:"Username."`
	Email    string            `arg:"" help:"E-mail address."`
	Tag      []string          `short:"t" sep:"none" help:"Tag; repeatable."`
	Metadata map[string]string `short:"m" mapsep:"none" placeholder:"KEY=VALUE" help:"Metadata; repeatable."`
	DryRun   bool              `help:"Check the user without creating it."`
}

// Run creates a user.
func (c *createCommand) Run(ctx context.Context, s *session) error {
	u, err := s.client.CreateUser(ctx, &userv1.CreateUserRequest{
		Username: c.Username, Email: c.Email, Tags: c.Tag, Metadata: c.Metadata, ValidateOnly: c.DryRun,
	})
	if err != nil {
		return err
	}
	return s.one(u, userFields(u))
}

// updateCommand is userctl update.
type updateCommand struct {
	User           string            `arg:"" help:"Id, e-mail address or username."`
	Username       *string           `help:"New username."`
	Email          *string           `help:"New e-mail address."`
	Status         *string           `complete:"active,inactive,suspended" help:"New status: active, inactive or suspended."`
	Tag            []string          `short:"t" sep:"none" help:"New tag; repeatable. All tags are replaced."`
	NoTags         bool              `help:"Remove all tags."`
	Metadata       map[string]string `short:"m" mapsep:"none" placeholder:"KEY=VALUE" help:"Metadata to set; repeatable. Other keys are kept."`
	RemoveMetadata []string          `sep:"none" placeholder:"KEY" help:"Metadata to remove; repeatable."`
	ETag           string            `name:"etag" help:"Change the user only if this is its etag."`
}

// Run changes a user.
func (c *updateCommand) Run(ctx context.Context, s *session) error {
	changed, paths, err := c.changes()
	if err != nil {
		return err
	}
	id, err := s.userID(ctx, c.User)
	if err != nil {
		return err
	}
	u, err := s.client.UpdateUser(ctx, &userv1.UpdateUserRequest{
		UserId: id, User: changed, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: c.ETag,
	})
	if err != nil {
		return err
	}
	return s.one(u, userFields(u))
}

// changes returns the new values and the paths of the update mask.
func (c *updateCommand) changes() (changed *userv1.User, paths []string, err error) {
	changed = &userv1.User{Metadata: c.Metadata, Tags: c.Tag}
	if c.Username != nil {
		changed.Username, paths = *c.Username, append(paths, "username")
	}
	if c.Email != nil {
		changed.Email, paths = *c.Email, append(paths, "email")
	}
	if c.Status != nil {
		if changed.Status, err = parseStatus(*c.Status); err != nil {
			return nil, nil, err
		}
		paths = append(paths, "status")
	}
	if len(c.Tag) > 0 && c.NoTags {
		return nil, nil, newUsageError("--tag and --no-tags cannot be used together")
	}
	if len(c.Tag) > 0 || c.NoTags {
		paths = append(paths, "tags")
	}
	for _, key := range slices.Concat(slices.Sorted(maps.Keys(c.Metadata)), c.RemoveMetadata) {
		paths = append(paths, "metadata."+key)
	}
	if len(paths) == 0 {
		return nil, nil, newUsageError("nothing to change; see userctl update --help")
	}
	return changed, paths, nil
}

// chosen defines the users of a write, and its condition.
type chosen struct {
	User []string `arg:"" help:"Ids, e-mail addresses or usernames."`
	ETag string   `name:"etag" help:"Apply only if this is the etag of the user; for one user."`
}

// each calls write for each user. doing is the question, or "" for none.
func (c *chosen) each(ctx context.Context, s *session, doing string, yes bool, write func(id int64, options ...client.WriteOption) error) error {
	var options []client.WriteOption
	if c.ETag != "" {
		if len(c.User) > 1 {
			return newUsageError("--etag is for one user")
		}
		options = append(options, client.IfMatch(c.ETag))
	}
	for _, name := range c.User {
		id, err := s.userID(ctx, name)
		if err != nil {
			return err
		}
		if doing != "" {
			if err := s.confirm(yes, doing+" "+name); err != nil {
				return err
			}
		}
		if err := write(id, options...); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// deleteCommand is userctl delete.
type deleteCommand struct {
	chosen `embed:""`
	Yes    bool `short:"y" help:"Do not ask."`
}

// Run deletes users.
func (c *deleteCommand) Run(ctx context.Context, s *session) error {
	rows := s.userList()
	err := c.each(ctx, s, "delete user", c.Yes, func(id int64, options ...client.WriteOption) error {
		u, err := s.client.DeleteUser(ctx, id, options...)
		if err != nil {
			return err
		}
		return rows.add(u)
	})
	return rows.endWith(err)
}

// undeleteCommand is userctl undelete.
type undeleteCommand struct {
	chosen `embed:""`
}

// Run restores users.
func (c *undeleteCommand) Run(ctx context.Context, s *session) error {
	rows := s.userList()
	err := c.each(ctx, s, "", true, func(id int64, options ...client.WriteOption) error {
		u, err := s.client.UndeleteUser(ctx, id, options...)
		if err != nil {
			return err
		}
		return rows.add(u)
	})
	return rows.endWith(err)
}

// purgeCommand is userctl purge.
type purgeCommand struct {
	chosen `embed:""`
	Yes    bool `short:"y" help:"Do not ask."`
}

// Run erases users.
func (c *purgeCommand) Run(ctx context.Context, s *session) error {
	rows := newList(s.output, func(r *userv1.UserActivity) []string {
		return []string{idText(r.GetUserId()), "purged", idText(r.GetActivityId())}
	}, "USER ID", "RESULT", "ACTIVITY ID")
	err := c.each(ctx, s, "erase for good user", c.Yes, func(id int64, options ...client.WriteOption) error {
		position, err := s.client.PurgeUser(ctx, id, options...)
		if err != nil {
			return err
		}
		return rows.add(&userv1.UserActivity{UserId: id, Action: "user.purged", ActivityId: position})
	})
	return rows.endWith(err)
}

// recordCommand is userctl record.
type recordCommand struct {
	User   string            `arg:"" help:"Id, e-mail address or username."`
	Action string            `arg:"" help:"Name of the activity, such as order.placed."`
	Detail map[string]string `short:"d" mapsep:"none" placeholder:"KEY=VALUE" help:"Detail; repeatable."`
}

// Run records an activity.
func (c *recordCommand) Run(ctx context.Context, s *session) error {
	id, err := s.userID(ctx, c.User)
	if err != nil {
		return err
	}
	row, err := s.client.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{UserId: id, Action: c.Action, Details: c.Detail})
	if err != nil {
		return err
	}
	rows := s.activityList()
	if err := rows.add(row); err != nil {
		return err
	}
	return rows.end()
}
