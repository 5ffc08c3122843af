package feed

import (
	"context"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// StatusChange is the newest status of a user. It does not reference the user, so pending
// changes keep no users in memory.
type StatusChange struct {
	Current  user.CurrentStatus // zero: purged
	UserID   int64
	Position int64 // of the row that set it
}

// Same reports whether the changes have the same message. A later time of the same status has the position of that status.
func (c *StatusChange) Same(other *StatusChange) bool {
	return c.Position == other.Position && c.UserID == other.UserID && c.Current.Time.Equal(other.Current.Time)
}

// Err returns the error of a deleted or purged user, nil for any other.
func (c *StatusChange) Err() error {
	switch {
	case c.Current.UserID == 0:
		return user.NewNotFoundError(c.UserID)
	case c.Current.Deleted:
		return user.NewDeletedError(c.UserID, c.Position)
	}
	return nil
}

// statusActions are the actions that change the status delivered to subscribers.
var statusActions = []string{
	user.ActionCreated, user.ActionStatusChanged,
	user.ActionDeleted, user.ActionUndeleted, user.ActionPurged,
}

// statusOf returns the status that a change has set, if any. If the user of a change of another node is newer than the
// change, there is none: the row of the newer status follows.
func statusOf(change *user.CommittedChange) (StatusChange, bool) {
	for i := range slices.Backward(change.Rows) {
		row := &change.Rows[i]
		if !slices.Contains(statusActions, row.Action) {
			continue
		}
		status := StatusChange{UserID: change.UserID, Position: row.Position}
		if change.User == nil {
			return status, row.Action == user.ActionPurged
		}
		status.Current = change.User.CurrentStatus()
		return status, status.Current.Position == row.Position
	}
	return StatusChange{}, false
}

// Statuses returns the current status of each user or, if after is not 0, of each user whose
// status changed after that position. An unknown user is reported as purged.
func (f *Feed) Statuses(ctx context.Context, ids []int64, after int64) ([]StatusChange, error) {
	found, err := f.store.Statuses(ctx, ids)
	if err != nil {
		return nil, err
	}
	changes := make([]StatusChange, 0, len(ids))
	for _, id := range ids {
		var status user.CurrentStatus
		exists := len(found) > 0 && found[0].UserID == id // found is in the order of ids
		if exists {
			status, found = found[0], found[1:]
		}
		change := StatusChange{Current: status, UserID: id, Position: status.Position}
		if !exists && after > 0 {
			if change.Position, err = f.purgedAt(ctx, id, after); err != nil {
				return nil, err
			}
		}
		if after == 0 || change.Position > after {
			changes = append(changes, change)
		}
	}
	return changes, nil
}

// purgedAt returns the position of the purge of a user after a position, 0 if none.
func (f *Feed) purgedAt(ctx context.Context, id, after int64) (int64, error) {
	page, err := f.store.Log(ctx, user.LogQuery{
		UserID: id, After: after, Desc: true, Actions: []string{user.ActionPurged}, MaxRows: 1,
	})
	if err != nil || len(page.Rows) == 0 {
		return 0, err
	}
	return page.Rows[0].Position, nil
}

// newest returns the statuses set by rows that are still current. A status newer than its
// row is skipped: its own row follows.
func (f *Feed) newest(ctx context.Context, rows []user.Activity) ([]StatusChange, error) {
	last := make(map[int64]int, len(rows))
	ids := make([]int64, 0, len(rows))
	for i := range rows {
		if _, duplicate := last[rows[i].UserID]; !duplicate {
			ids = append(ids, rows[i].UserID)
		}
		last[rows[i].UserID] = i
	}
	current, err := f.current(ctx, ids)
	if err != nil {
		return nil, err
	}
	changes := make([]StatusChange, 0, len(ids))
	for i := range rows {
		id := rows[i].UserID
		if last[id] != i {
			continue
		}
		status, exists := current[id]
		if status.Position == rows[i].Position || !exists && rows[i].Action == user.ActionPurged {
			changes = append(changes, StatusChange{Current: status, UserID: id, Position: rows[i].Position})
		}
	}
	return changes, nil
}

func (f *Feed) current(ctx context.Context, ids []int64) (map[int64]user.CurrentStatus, error) {
	found, err := f.store.Statuses(ctx, ids)
	if err != nil {
		return nil, err
	}
	current := make(map[int64]user.CurrentStatus, len(found))
	for _, status := range found {
		current[status.UserID] = status
	}
	return current, nil
}
