package feed

import (
	"cmp"
	"context"
	"time"

	"github.com/yourorg/userservice/service/user"
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
	Where       *user.Condition                  // that all matching users meet; nil: none
}

// UserChange is the newest state of a user. Cursors share the user, which must not be modified.
type UserChange struct {
	Position int64 // of the last change of the user
	UserID   int64
	User     *user.User // nil: it does not match, is deleted, or was purged
	Shared   *Shared    // nil: no other cursor returns the user
}

// UserPage is the result of one read.
type UserPage struct {
	Changes []UserChange // in the order of positions
	// AtHead reports that no more changes are ready. The first time, the changes read so far are the state
	// of the users at Position.
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
//
// Cursors at the head read the window, which is read from the store once for all of them.
type UserCursor struct {
	*wakeups

	feed *Feed
	opts UserCursorOptions
	// removalsAfter is the position up to which the client cannot have received a user that is
	// removed at that position.
	removalsAfter int64
	window        int  // generation of the window that the cursor reads; 0: it reads the store
	sparse        bool // few of the users read match
}

// wakeups are the part of a Cursor that a UserCursor has too.
type wakeups struct{ cursor *Cursor }

// Position returns the position up to which Read has returned everything.
func (w wakeups) Position() int64 { return w.cursor.Position() }

// Drained is [Cursor.Drained].
func (w wakeups) Drained() error { return w.cursor.Drained() }

// SetFullPages is [Cursor.SetFullPages]; a full page takes UserPageMemory.
func (w wakeups) SetFullPages(full bool) { w.cursor.SetFullPages(full) }

// UserCursor returns a cursor. The caller must close it.
func (f *Feed) UserCursor(opts UserCursorOptions) *UserCursor {
	cursor := f.Cursor(CursorOptions{UserID: changedUsers, After: opts.After})
	c := &UserCursor{wakeups: &wakeups{cursor}, feed: f, opts: opts, removalsAfter: opts.After}
	if opts.After == 0 {
		c.removalsAfter = f.Head().Position
	}
	return c
}

// Wait is [Cursor.Wait]. It returns when users have changed. It moves the cursor past other rows, which can be
// pruned.
func (c *UserCursor) Wait(ctx context.Context, timer <-chan time.Time) error {
	err := c.cursor.Wait(ctx, timer)
	if entries, through, _, ok := c.feed.window.read(c.window, &c.cursor.query); ok && len(entries) == 0 {
		c.cursor.advance(through)
	}
	return cmp.Or(c.Drained(), err)
}

// Close unregisters the cursor.
func (c *UserCursor) Close() {
	c.feed.window.leave(c.window)
	c.cursor.Close()
}

// Read returns the next changes, in the order of positions. A page may be empty although more
// follow. It fails with a POSITION_OUT_OF_RANGE error if the removals after Position are no longer
// in the log.
func (c *UserCursor) Read(ctx context.Context) (UserPage, error) {
	if page, ok := c.readWindow(); ok {
		return page, nil
	}
	query := usersQuery{
		after: c.Position(), removalsAfter: c.removalsAfter, matches: c.matches,
		maxUsers: c.cursor.query.MaxRows, maxBytes: c.cursor.query.MaxBytes,
	}
	if c.sparse && query.after < query.removalsAfter {
		query.where = c.opts.Where
	}
	read, err := c.feed.readUsers(ctx, query)
	if err != nil {
		return UserPage{}, cmp.Or(c.Drained(), err) // with the position of this cursor
	}
	c.cursor.advance(read.through)
	c.sparse = c.sparse || sparseFactor*len(read.changes) < read.scanned
	if read.done {
		c.window = c.feed.window.join(read.through) //nolint:contextcheck // the window is read for all cursors
	}
	return UserPage{Changes: read.changes, AtHead: read.done}, nil
}

// readWindow returns the next changes in the window. It returns false if the cursor must read the store.
func (c *UserCursor) readWindow() (UserPage, bool) {
	if c.window == 0 {
		return UserPage{}, false
	}
	entries, through, atHead, ok := c.feed.window.read(c.window, &c.cursor.query)
	if !ok {
		c.feed.window.leave(c.window)
		c.window = 0
		return UserPage{}, false
	}
	page := UserPage{Changes: make([]UserChange, len(entries)), AtHead: atHead}
	for i, e := range entries {
		change := &page.Changes[i]
		*change = e.UserChange
		if e.User == nil || !c.matches(e.User, e.keys) {
			change.User, change.Shared = nil, nil
		}
	}
	c.cursor.advance(through)
	return page, true
}

// advance moves the cursor to a position up to which everything was read.
func (c *Cursor) advance(position int64) {
	c.query.After = position
	c.readTo.Store(position)
}

func (c *UserCursor) matches(u *user.User, keys user.Keys) bool {
	return (c.opts.ShowDeleted || !u.Deleted()) && (c.opts.Match == nil || c.opts.Match(u, keys))
}
