package feed

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/user"
)

const (
	// userPageScanned bounds the users scanned for one page, and purgePageRows the purges in it.
	userPageScanned = 1024
	purgePageRows   = 256
)

// UserPageMemory returns the maximum memory of a full page of users, the first of which may exceed
// the bound in bytes, and of the user that did not fit.
func UserPageMemory() int64 { return pageBytes + 2*int64(user.MaxUserSize()) }

// UserCursorOptions select the users of a UserCursor.
type UserCursorOptions struct {
	// After is the position after which users have changed. 0: all users, and removals only of
	// users that changed after the cursor was created.
	After       int64
	ShowDeleted bool
	Match       func(*user.User, user.Keys) bool // nil: all users match
}

// UserChange is the newest state of a user.
type UserChange struct {
	Position int64 // of the last change of the user
	UserID   int64
	User     *user.User // nil: it does not match, is deleted, or was purged
}

// UserPage is the result of one read.
type UserPage struct {
	Changes []UserChange // in the order of positions
	// AtHead reports that the changes read so far are the state of the users at Position.
	AtHead bool
}

// Size returns the approximate size of the users in memory.
func (p *UserPage) Size() (bytes int64) {
	for i := range p.Changes {
		if u := p.Changes[i].User; u != nil {
			bytes += int64(u.Size())
		}
	}
	return bytes
}

// UserCursor reads the users that changed after a position, in the order of their last change. A
// user that changes again moves to the end of this order, so the cursor returns its newest state,
// and no older state after a newer one. Purged users have no such place: their removals are rows
// of the log, read for the same range of positions.
type UserCursor struct {
	*wakeups

	feed *Feed
	opts UserCursorOptions
	// removalsAfter is the position up to which the client cannot have received a user that is
	// removed at that position.
	removalsAfter int64
}

// wakeups are the part of a Cursor that a UserCursor has too.
type wakeups struct{ cursor *Cursor }

// Position returns the position up to which Read has returned everything.
func (w wakeups) Position() int64 { return w.cursor.Position() }

// Wait is [Cursor.Wait].
func (w wakeups) Wait(ctx context.Context, timer <-chan time.Time) error {
	return w.cursor.Wait(ctx, timer)
}

// Drained is [Cursor.Drained].
func (w wakeups) Drained() error { return w.cursor.Drained() }

// SetFullPages is [Cursor.SetFullPages]; a full page takes UserPageMemory.
func (w wakeups) SetFullPages(full bool) { w.cursor.SetFullPages(full) }

// Close unregisters the cursor.
func (w wakeups) Close() { w.cursor.Close() }

// UserCursor returns a cursor. The caller must close it.
func (f *Feed) UserCursor(opts UserCursorOptions) *UserCursor {
	cursor := f.Cursor(CursorOptions{After: opts.After})
	c := &UserCursor{wakeups: &wakeups{cursor}, feed: f, opts: opts, removalsAfter: opts.After}
	if opts.After == 0 {
		c.removalsAfter = f.Head().Position
	}
	return c
}

// Read returns the next changes, in the order of positions. A page may be empty although more
// follow. It fails with a POSITION_OUT_OF_RANGE error if the removals after Position are no longer
// in the log.
func (c *UserCursor) Read(ctx context.Context) (UserPage, error) {
	after, head := c.Position(), c.feed.Head().Position
	read, err := c.users(ctx, after)
	if err != nil {
		return UserPage{}, err
	}
	reached := read.reached
	if read.done {
		// The end of the list is the state of all users at head or later.
		reached = max(reached, head)
	}
	// The store shows a commit before the feed is notified, and a client resumes only at
	// positions that the feed knows.
	if err := c.feed.WaitFor(ctx, reached); err != nil {
		return UserPage{}, cmp.Or(c.Drained(), err) // with the position of this cursor
	}
	purges, through, err := c.purges(ctx, max(after, c.removalsAfter), reached)
	if err != nil {
		return UserPage{}, err
	}
	changes := slices.Concat(read.changes, purges)
	slices.SortFunc(changes, func(a, b UserChange) int { return cmp.Compare(a.Position, b.Position) })
	changes = slices.DeleteFunc(changes, func(change UserChange) bool { return change.Position > through })
	c.cursor.advance(through)
	return UserPage{Changes: changes, AtHead: read.done && through == reached}, nil
}

// advance moves the cursor to a position up to which everything was read.
func (c *Cursor) advance(position int64) {
	c.query.After = position
	c.readTo.Store(position)
}

type usersRead struct {
	changes []UserChange
	reached int64 // every user whose last change is up to here was read
	done    bool  // no user changed after reached
}

// users reads the users that changed after a position.
func (c *UserCursor) users(ctx context.Context, after int64) (usersRead, error) {
	read := usersRead{reached: after}
	var removed []UserChange
	page, err := c.feed.store.List(ctx, user.ListQuery{
		Order: user.ByLastActivity, After: &user.ListCursor{Position: after, ID: math.MaxInt64}, ShowDeleted: true,
		MaxUsers: c.cursor.query.MaxRows, MaxBytes: c.cursor.query.MaxBytes, MaxScanned: userPageScanned,
		Match: func(u *user.User, keys user.Keys) bool {
			if c.matches(u, keys) {
				return true
			}
			removed = append(removed, UserChange{Position: u.LastActivityID, UserID: u.ID})
			return false
		},
	})
	if err != nil {
		return read, err
	}
	last := after
	if n := len(removed); n > 0 {
		last = removed[n-1].Position
	}
	for _, change := range removed {
		if change.Position > c.removalsAfter {
			read.changes = append(read.changes, change)
		}
	}
	for _, u := range page.Users {
		read.changes = append(read.changes, UserChange{Position: u.LastActivityID, UserID: u.ID, User: u})
		last = max(last, u.LastActivityID)
	}
	read.done = page.Next == nil
	if !read.done {
		last = page.Next.Position
	}
	read.reached = last
	return read, nil
}

func (c *UserCursor) matches(u *user.User, keys user.Keys) bool {
	return (c.opts.ShowDeleted || !u.Deleted()) && (c.opts.Match == nil || c.opts.Match(u, keys))
}

// purges returns the removals of the users purged in (after, reached], up to the position through.
func (c *UserCursor) purges(ctx context.Context, after, reached int64) (removals []UserChange, through int64, err error) {
	if after >= reached {
		return nil, reached, nil
	}
	page, err := c.feed.store.Log(ctx, user.LogQuery{
		After: after, Before: reached + 1, Actions: purgeActions, MaxRows: purgePageRows,
	})
	if err != nil {
		return nil, 0, err
	}
	// Rows that are pruned during the read are noticed after it.
	if err := c.feed.CheckPosition(ctx, "", after); err != nil {
		return nil, 0, err
	}
	for i := range page.Rows {
		removals = append(removals, UserChange{Position: page.Rows[i].Position, UserID: page.Rows[i].UserID})
	}
	return removals, page.Reached, nil
}

var purgeActions = []string{user.ActionPurged}
