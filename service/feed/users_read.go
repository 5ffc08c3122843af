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
	// sparseFactor is the number of users scanned for one that matches from which the condition of the filter is
	// used. The store evaluates it once for each page.
	sparseFactor = 8
)

// usersQuery selects a page of changes.
type usersQuery struct {
	after         int64
	removalsAfter int64 // no removals up to here
	matches       func(*user.User, user.Keys) bool
	// where makes the read end at removalsAfter: of the users that do not match, only removals are of interest.
	where *user.Condition

	maxUsers, maxBytes int
}

// usersRead is a page of changes, in the order of positions.
type usersRead struct {
	changes []UserChange
	through int64 // every change up to here was read
	done    bool  // the changes up to here are the state of the users at through
	scanned int   // number of users scanned
}

// readUsers reads changes from the store.
func (f *Feed) readUsers(ctx context.Context, query usersQuery) (usersRead, error) {
	read, err := f.changedUsers(ctx, query)
	if err != nil {
		return usersRead{}, err
	}
	// The store shows a commit before the feed is notified, and a client resumes only at
	// positions that the feed knows.
	if err := f.WaitFor(ctx, read.through); err != nil {
		return usersRead{}, err
	}
	purges, through, err := f.purges(ctx, max(query.after, query.removalsAfter), read.through)
	if err != nil {
		return usersRead{}, err
	}
	read.changes = append(read.changes, purges...)
	slices.SortFunc(read.changes, func(a, b UserChange) int { return cmp.Compare(a.Position, b.Position) })
	read.done = read.done && through == read.through
	read.through = through
	// The store may have called Match for a user after the page.
	read.changes = slices.DeleteFunc(read.changes, func(change UserChange) bool { return change.Position > through })
	return read, nil
}

// changedUsers reads the users that changed, without purged ones. done reports that none changed after through.
func (f *Feed) changedUsers(ctx context.Context, query usersQuery) (usersRead, error) {
	var read usersRead
	var removed []UserChange
	list := user.ListQuery{
		Order: user.ByLastActivity, After: &user.ListCursor{Position: query.after, ID: math.MaxInt64}, ShowDeleted: true,
		MaxUsers: query.maxUsers, MaxBytes: query.maxBytes, MaxScanned: userPageScanned,
		Match: func(u *user.User, keys user.Keys) bool {
			read.scanned++
			if query.matches(u, keys) {
				return true
			}
			removed = append(removed, UserChange{Position: u.LastActivityID, UserID: u.ID})
			return false
		},
	}
	if query.where != nil {
		list.Where, list.BeforeActivity = query.where, query.removalsAfter+1
	}
	page, err := f.store.List(ctx, list)
	if err != nil { // the store may still call Match, which modifies read
		return usersRead{}, err
	}
	for _, change := range removed {
		if change.Position > query.removalsAfter {
			read.changes = append(read.changes, change)
		}
	}
	for _, u := range page.Users {
		read.changes = append(read.changes, UserChange{Position: u.LastActivityID, UserID: u.ID, User: u})
	}
	switch {
	case page.Next != nil:
		read.through = page.Next.Position
	case query.where != nil:
		read.through = query.removalsAfter
	default: // the list is the state of the users at Head
		read.through, read.done = page.Head, true
	}
	return read, nil
}

// purges returns the removals of the users purged in (after, reached], up to the position through.
func (f *Feed) purges(ctx context.Context, after, reached int64) (removals []UserChange, through int64, err error) {
	if after >= reached {
		return nil, reached, nil
	}
	page, err := f.store.Log(ctx, user.LogQuery{
		After: after, Before: reached + 1, Actions: purgeActions, MaxRows: purgePageRows,
	})
	if err != nil {
		return nil, 0, err
	}
	for i := range page.Rows {
		removals = append(removals, UserChange{Position: page.Rows[i].Position, UserID: page.Rows[i].UserID})
	}
	return removals, page.Reached, nil
}

var purgeActions = []string{user.ActionPurged}
