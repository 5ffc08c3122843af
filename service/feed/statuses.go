package feed

import (
	"context"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// StatusChange is the newest status of a user. It does not refer to the user, so that
// a subscription that keeps changes holds no users in memory.
type StatusChange struct {
	Current  user.CurrentStatus // zero: purged
	UserID   int64
	Position int64 // of the row that led to it
}

// Gone returns why the user has no status any more, nil if it has one.
func (c *StatusChange) Gone() error {
	switch {
	case c.Current.UserID == 0:
		return user.ErrNotFound(c.UserID)
	case c.Current.Deleted:
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
			status := StatusChange{UserID: change.UserID, Position: change.Rows[i].Position}
			if change.User != nil {
				status.Current = change.User.CurrentStatus()
			}
			return status, true
		}
	}
	return StatusChange{}, false
}

// Statuses returns the present status of each user, or if after is not 0 of each
// whose status has changed since that position. A user that there is not is told
// as purged.
func (f *Feed) Statuses(ctx context.Context, ids []int64, after int64) ([]StatusChange, error) {
	changes := make([]StatusChange, 0, len(ids))
	for _, id := range ids {
		if after == 0 {
			changes = append(changes, StatusChange{UserID: id})
			continue
		}
		page, err := f.store.Log(ctx, user.LogQuery{
			UserID: id, After: after, Desc: true, Actions: statusActions, MaxRows: 1,
		})
		if err != nil {
			return nil, err
		}
		for i := range page.Rows {
			changes = append(changes, StatusChange{UserID: id, Position: page.Rows[i].Position})
		}
	}
	if err := f.fill(ctx, changes); err != nil {
		return nil, err
	}
	for i := range changes {
		changes[i].Position = max(changes[i].Position, changes[i].Current.Position)
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
	for i := range rows {
		if id := rows[i].UserID; last[id] == rows[i].Position {
			changes = append(changes, StatusChange{UserID: id, Position: rows[i].Position})
		}
	}
	if err := f.fill(ctx, changes); err != nil {
		return nil, err
	}
	return changes, nil
}

// fill reads the current status of each change.
func (f *Feed) fill(ctx context.Context, changes []StatusChange) error {
	ids := make([]int64, len(changes))
	for i := range changes {
		ids[i] = changes[i].UserID
	}
	found, err := f.store.Statuses(ctx, ids)
	if err != nil {
		return err
	}
	current := make(map[int64]user.CurrentStatus, len(found))
	for _, status := range found {
		current[status.UserID] = status
	}
	for i := range changes {
		changes[i].Current = current[changes[i].UserID]
	}
	return nil
}
