package feed

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/user"
)

// Bounds of one page: large enough to amortize a read, small enough that a stalled stream
// holds little memory.
const (
	pageRows  = 128
	pageBytes = 32 << 10

	// Bounds of the first pages of a stream.
	smallPageRows  = 16
	smallPageBytes = 4 << 10
)

// PageMemory is the memory of two full pages, one of them prefetched. The details of a row
// are a map, which takes three times their length.
const PageMemory = 2 * 3 * pageBytes

// CursorOptions select the rows of a cursor.
type CursorOptions struct {
	UserID  int64     // 0: all users
	After   int64     // the first row is the one after this position
	Oldest  bool      // start with the oldest retained row; After is the position before it
	Since   time.Time // skip rows before this time
	Actions []string  // only these actions; empty: all
	// Deleted reports whether the user was deleted, as read after the position After was
	// chosen. It is ignored for all users.
	Deleted bool
}

// Cursor reads the log from a position on. Only Feed.Lag uses it concurrently.
type Cursor struct {
	feed       *Feed
	since      time.Time // of CursorOptions
	actions    []string  // of CursorOptions
	query      user.LogQuery
	wake       chan struct{}
	more       bool          // more rows follow the last page
	prefetched chan pageRead // the prefetched page; nil: none
	stop       func() bool   // ends the signal of the context; nil: Wait was not called
	deleted    bool          // the user is deleted as of the rows read

	// readTo is the position up to which everything was read, or idle.
	readTo atomic.Int64
	// unread is the position of the first row of the user signalled since the last Wait; 0: none.
	unread atomic.Int64

	prev, next *Cursor // in the list of cursors of the user; guarded by Feed.mu
}

// idle is the value of readTo of a cursor that waits for new rows.
const idle = -1

// Page is the result of one read.
type Page struct {
	Rows   []user.Activity
	AtHead bool // the read reached the head of the log
	Ended  bool // AtHead, and the user is deleted, so no rows follow
}

// Cursor returns a cursor. The caller must close it.
func (f *Feed) Cursor(opts CursorOptions) *Cursor {
	c := &Cursor{
		feed: f, since: opts.Since, actions: opts.Actions, wake: make(chan struct{}, 1), deleted: opts.Deleted,
		query: user.LogQuery{UserID: opts.UserID, After: opts.After, Retained: opts.Oldest, Actions: opts.Actions},
	}
	c.SetFullPages(false)
	c.readTo.Store(opts.After)
	if len(opts.Actions) > 0 && opts.UserID != allUsers {
		// The cursor detects the deletion of its user regardless of the filter.
		c.query.Actions = slices.Concat(opts.Actions, lifecycleActions)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.next = f.cursors[opts.UserID]; c.next != nil {
		c.next.prev = c
	}
	f.cursors[opts.UserID] = c
	return c
}

// Close unregisters the cursor.
func (c *Cursor) Close() {
	if c.stop != nil {
		c.stop()
	}
	c.feed.mu.Lock()
	defer c.feed.mu.Unlock()
	cursors, userID := c.feed.cursors, c.query.UserID
	switch {
	case c.prev != nil:
		c.prev.next = c.next
	case cursors[userID] != c: // closed before
		return
	case c.next != nil:
		cursors[userID] = c.next
	default:
		delete(cursors, userID)
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}

// SetFullPages sets the size of the next pages. A cursor starts with small pages, which the
// base cost of a stream covers; full pages take PageMemory.
func (c *Cursor) SetFullPages(full bool) {
	c.query.MaxRows, c.query.MaxBytes = smallPageRows, smallPageBytes
	if full {
		c.query.MaxRows, c.query.MaxBytes = pageRows, pageBytes
	}
}

// Position returns the position up to which Read has returned everything.
func (c *Cursor) Position() int64 { return c.query.After }

// Read returns the next rows, in order. A page may be empty although more rows follow. It fails with a
// POSITION_OUT_OF_RANGE error if rows after Position were pruned.
func (c *Cursor) Read(ctx context.Context) (Page, error) {
	read, err := c.log(ctx)
	if err != nil {
		return Page{}, err
	}
	c.query.After, c.query.Retained = read.Reached, false
	c.readTo.Store(c.query.After)
	c.more = !read.Done
	page := Page{AtHead: read.Done, Rows: read.Rows}
	if c.query.UserID != allUsers {
		c.trackDeletion(read.Rows)
		page.Ended = read.Done && c.deleted
	}
	if len(c.actions) > 0 || !c.since.IsZero() {
		page.Rows = slices.DeleteFunc(page.Rows, c.excluded)
	}
	return page, nil
}

type pageRead struct {
	page user.LogPage
	err  error
}

// log returns the next page, prefetched or not. A row committed after the prefetch has
// signalled the cursor, so it is read after the next Wait.
func (c *Cursor) log(ctx context.Context) (user.LogPage, error) {
	if c.prefetched == nil {
		return c.feed.store.Log(ctx, c.query)
	}
	slot := fair.FromContext(ctx)
	held := slot.Release()
	read := <-c.prefetched
	c.prefetched = nil
	slot.Resume(held)
	return read.page, read.err
}

// Prefetch reads the next page, if any, in the background.
func (c *Cursor) Prefetch(ctx context.Context) {
	if !c.more || c.prefetched != nil {
		return
	}
	prefetched, query := make(chan pageRead, 1), c.query
	ctx = fair.NewContext(ctx, nil) // the stream goes on in its slot
	go func() {
		var read pageRead
		// No interceptor covers this goroutine.
		read.err = panics.Catch(func() (err error) {
			read.page, err = c.feed.store.Log(ctx, query)
			return err
		})
		prefetched <- read
	}()
	c.prefetched = prefetched
}

// Wait blocks until new rows may be available or the timer fires. The last Read must have reached the
// head. Wait returns a SERVER_DRAINING error at shutdown, or the cause of ctx, which must be the same for each call.
//
// Commits, the drain and the context signal one channel: the stack of a select is larger than that of most handlers, and a waiting
// stream has few other frames.
func (c *Cursor) Wait(ctx context.Context, timer <-chan time.Time) error {
	if err := c.beforeWait(ctx); err != nil {
		return err
	}
	if timer == nil {
		<-c.wake
	} else {
		c.waitFor(timer)
	}
	return c.afterWait(ctx)
}

func (c *Cursor) beforeWait(ctx context.Context) error {
	if err := c.Drained(); err != nil {
		return err
	}
	if c.stop == nil {
		c.stop = context.AfterFunc(ctx, c.signal)
	}
	c.readTo.Store(idle)
	return nil
}

//go:noinline // for the stack of Wait
func (c *Cursor) waitFor(timer <-chan time.Time) {
	select {
	case <-c.wake:
	case <-timer:
	}
}

func (c *Cursor) afterWait(ctx context.Context) error {
	c.skip()
	return cmp.Or(c.Drained(), context.Cause(ctx))
}

// skip moves the cursor of a user past the rows of others that were committed during Wait. Otherwise the
// rows after its position could be pruned although it needs none of them.
func (c *Cursor) skip() {
	if c.query.UserID <= allUsers {
		c.readTo.Store(c.feed.Head().Position) // every row up to the head before the wake-up was read
		return
	}
	unread := c.unread.Swap(0)
	if unread == 0 {
		c.feed.mu.Lock() // a commit advances the head before it signals
		unread = cmp.Or(c.unread.Swap(0), c.feed.Head().Position+1)
		c.feed.mu.Unlock()
	}
	c.query.After = max(c.query.After, unread-1)
	c.readTo.Store(c.query.After)
}

// Drained returns a SERVER_DRAINING error during shutdown, else nil.
func (c *Cursor) Drained() error {
	if !c.feed.IsDraining() {
		return nil
	}
	return user.NewDrainingError(c.feed.Head().Epoch, c.Position())
}

// signalRow wakes the cursor for a row of its user.
func (c *Cursor) signalRow(position int64) {
	c.unread.CompareAndSwap(0, position)
	c.signal()
}

func (c *Cursor) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

var lifecycleActions = []string{user.ActionDeleted, user.ActionUndeleted, user.ActionPurged}

func (c *Cursor) trackDeletion(rows []user.Activity) {
	for i := range rows {
		switch rows[i].Action {
		case user.ActionDeleted, user.ActionPurged:
			c.deleted = true
		case user.ActionUndeleted:
			c.deleted = false
		}
	}
}

func (c *Cursor) excluded(row user.Activity) bool {
	if row.Time.Before(c.since) {
		return true
	}
	return len(c.actions) > 0 && !slices.Contains(c.actions, row.Action)
}
