package feed

import (
	"context"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// StatusChange is the newest status of a user.
type StatusChange struct {
	User     *user.User // nil: purged. Not to be changed.
	UserID   int64
	Position int64 // of the row that led to it
}

// Gone returns why the user has no status any more, nil if it has one.
func (c *StatusChange) Gone() error {
	switch {
	case c.User == nil:
		return user.ErrNotFound(c.UserID)
	case c.User.Deleted():
		return user.ErrDeleted(c.UserID)
	}
	return nil
}

// statusActions are the actions after which a follower must hear of a user.
var statusActions = []string{
	user.ActionCreated, user.ActionStatusChanged,
	user.ActionDeleted, user.ActionUndeleted, user.ActionPurged,
}

func statusOf(change *user.Committed) (StatusChange, bool) {
	for i := range slices.Backward(change.Rows) {
		if slices.Contains(statusActions, change.Rows[i].Action) {
			return StatusChange{User: change.User, UserID: change.UserID, Position: change.Rows[i].Position}, true
		}
	}
	return StatusChange{}, false
}

// Statuses returns the present status of each user, or if after is not 0 of each
// whose status has changed since that position. A user that there is not is told
// as purged.
func (f *Feed) Statuses(ctx context.Context, ids []int64, after int64) ([]StatusChange, error) {
	var rows []user.Activity
	for _, id := range ids {
		if after == 0 {
			rows = append(rows, user.Activity{UserID: id})
			continue
		}
		page, err := f.store.Log(ctx, user.LogQuery{
			UserID: id, After: after, Desc: true, Actions: statusActions, MaxRows: 1,
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, page.Rows...)
	}
	changes, err := f.newest(ctx, rows)
	if err != nil {
		return nil, err
	}
	for i := range changes {
		if u := changes[i].User; u != nil {
			changes[i].Position = max(changes[i].Position, u.StatusPosition)
		}
	}
	return changes, nil
}

// newest turns rows into the present statuses of their users, each at the position
// of its last row.
func (f *Feed) newest(ctx context.Context, rows []user.Activity) ([]StatusChange, error) {
	last := make(map[int64]int64, len(rows))
	for i := range rows {
		last[rows[i].UserID] = rows[i].Position
	}
	changes := make([]StatusChange, 0, len(last))
	ids := make([]int64, 0, len(last))
	for i := range rows {
		if id := rows[i].UserID; last[id] == rows[i].Position {
			changes = append(changes, StatusChange{UserID: id, Position: rows[i].Position})
			ids = append(ids, id)
		}
	}
	present := make(map[int64]*user.User, len(ids))
	for chunk := range slices.Chunk(ids, takeRows) {
		users, err := f.store.GetMany(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, u := range users {
			present[u.ID] = u
		}
	}
	for i := range changes {
		changes[i].User = present[changes[i].UserID]
	}
	return changes, nil
}
