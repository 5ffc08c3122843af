package feed

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

const (
	// userPageScanned bounds the users scanned for one page, and purgePageRows the purges in it.
	userPageScanned = 1024
	purgePageRows   = 256
)

// usersQuery selects a page of changes.
type usersQuery struct {
	after         int64
	removalsAfter int64 // no removals up to here
	matches       func(*user.User, user.Keys) bool

	maxUsers, maxBytes int
}

// usersRead is a page of changes, in the order of positions.
type usersRead struct {
	changes []UserChange
	through int64 // every change up to here was read
	done    bool  // the changes up to here are the state of the users at through
}

// readUsers reads changes from the store.
func (f *Feed) readUsers(ctx context.Context, query usersQuery) (usersRead, error) {
	head := f.Head().Position
	read, err := f.changedUsers(ctx, query)
	if err != nil {
		return usersRead{}, err
	}
	if read.done {
		// The end of the list is the state of all users at head or later.
		read.through = max(read.through, head)
	}
	// The store shows a commit before the feed is notified, and a client resumes only at
	// positions that the feed knows.
	if err := f.WaitFor(ctx, read.through); err != nil {
		return usersRead{}, err
	}
	purges, err := f.purges(ctx, max(query.after, query.removalsAfter), &read)
	if err != nil {
		return usersRead{}, err
	}
	read.changes = append(read.changes, purges...)
	slices.SortFunc(read.changes, func(a, b UserChange) int { return cmp.Compare(a.Position, b.Position) })
	read.changes = slices.DeleteFunc(read.changes, func(change UserChange) bool { return change.Position > read.through })
	return read, nil
}

// changedUsers reads the users that changed, without purged ones. done reports that none changed after through.
func (f *Feed) changedUsers(ctx context.Context, query usersQuery) (usersRead, error) {
	read := usersRead{through: query.after}
	var removed []UserChange
	page, err := f.store.List(ctx, user.ListQuery{
		Order: user.ByLastActivity, After: &user.ListCursor{Position: query.after, ID: math.MaxInt64}, ShowDeleted: true,
		MaxUsers: query.maxUsers, MaxBytes: query.maxBytes, MaxScanned: userPageScanned,
		Match: func(u *user.User, keys user.Keys) bool {
			if query.matches(u, keys) {
				return true
			}
			removed = append(removed, UserChange{Position: u.LastActivityID, UserID: u.ID})
			return false
		},
	})
	if err != nil {
		return read, err
	}
	if n := len(removed); n > 0 {
		read.through = removed[n-1].Position
	}
	for _, change := range removed {
		if change.Position > query.removalsAfter {
			read.changes = append(read.changes, change)
		}
	}
	for _, u := range page.Users {
		read.changes = append(read.changes, UserChange{Position: u.LastActivityID, UserID: u.ID, User: u})
		read.through = max(read.through, u.LastActivityID)
	}
	read.done = page.Next == nil
	if !read.done {
		read.through = page.Next.Position
	}
	return read, nil
}

// purges returns the removals of the users purged after a position. It reduces read.through to the position up
// to which they are complete. If a user was purged after read.through, it may have been missing in the list, so the
// read is not done.
func (f *Feed) purges(ctx context.Context, after int64, read *usersRead) (removals []UserChange, err error) {
	query := user.LogQuery{After: after, Before: read.through + 1, Actions: purgeActions, MaxRows: purgePageRows}
	if read.done {
		query.Before = 0
	} else if after >= read.through {
		return nil, nil
	}
	page, err := f.store.Log(ctx, query)
	if err != nil {
		return nil, err
	}
	// Rows that are pruned during the read are noticed after it.
	if err := f.CheckPosition(ctx, "", after); err != nil {
		return nil, err
	}
	for i := range page.Rows {
		removals = append(removals, UserChange{Position: page.Rows[i].Position, UserID: page.Rows[i].UserID})
	}
	if n := len(removals); page.Reached < read.through || n > 0 && removals[n-1].Position > read.through {
		read.through, read.done = min(read.through, page.Reached), false
	}
	return removals, nil
}

var purgeActions = []string{user.ActionPurged}
