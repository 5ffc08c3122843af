package feed

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// pageRows and pageBytes bound what a cursor reads at once: enough to make a read's own
// cost small, little enough that a reader who stalls holds little.
const (
	pageRows  = 128
	pageBytes = 32 << 10

	// The smaller pages of a stream that has shown nothing of its pace.
	smallPageRows  = 16
	smallPageBytes = 4 << 10
)

// PageMemory is what two full pages take, the second of which may be read ahead: the
// details of a row are a map, and take three times their length.
const PageMemory = 2 * 3 * pageBytes

// CursorOptions say what a cursor follows.
type CursorOptions struct {
	UserID  int64     // 0: everybody
	After   int64     // the first row is the one after this position
	Since   time.Time // leaves rows before this time out
	Actions []string  // keeps these actions only; empty: all
	// Deleted says whether the user was deleted, as read after the position After
	// was chosen. It does not count for everybody.
	Deleted bool
}

// Cursor is a place in the log that moves on. It is for one goroutine; at is for all.
type Cursor struct {
	feed   *Feed
	opts   CursorOptions
	query  user.LogQuery
	woken  chan struct{}
	more   bool          // there was more than the last page
	ahead  chan pageRead // the next page on its way; nil: it is not
	gone   bool          // the user is deleted as far as the rows read tell
	seamed bool          // the head has been reached once

	// at is the position up to which everything was read, or waits: it has all there is
	// for it.
	at atomic.Int64
}

// waits is where a cursor is that has all there is for it.
const waits = -1

// Page is what a cursor reads at once.
type Page struct {
	Rows []user.Activity
	// AtHead: that was all, as of this read.
	AtHead bool
	// Ended: that was all, and the user is deleted, so that nothing more comes.
	Ended bool
}

// Cursor returns a cursor, which must be closed.
func (f *Feed) Cursor(opts CursorOptions) *Cursor {
	c := &Cursor{
		feed: f, opts: opts, woken: make(chan struct{}, 1), gone: opts.Deleted,
		query: user.LogQuery{UserID: opts.UserID, After: opts.After, Actions: opts.Actions},
	}
	c.SetFullPages(false)
	c.at.Store(opts.After)
	if len(opts.Actions) > 0 && opts.UserID != wholeLog {
		// Whatever the caller keeps, the cursor must see its user's life end.
		c.query.Actions = slices.Concat(opts.Actions, lifeActions)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	enter(f.cursors, opts.UserID, c)
	return c
}

// Close ends the cursor's wake-ups.
func (c *Cursor) Close() {
	c.feed.mu.Lock()
	defer c.feed.mu.Unlock()
	leave(c.feed.cursors, c.opts.UserID, c)
}

// SetFullPages sets the size of the next pages. A cursor begins with small ones, for which the
// base cost of a stream has room; full ones take PageMemory.
func (c *Cursor) SetFullPages(full bool) {
	c.query.MaxRows, c.query.MaxBytes = smallPageRows, smallPageBytes
	if full {
		c.query.MaxRows, c.query.MaxBytes = pageRows, pageBytes
	}
}

// Position is the position up to which Read has given everything.
func (c *Cursor) Position() int64 { return c.query.After }

// Read returns the next rows, in order. There may be none although more follow.
func (c *Cursor) Read(ctx context.Context) (Page, error) {
	read, err := c.log(ctx)
	if err != nil {
		return Page{}, err
	}
	c.query.After = read.Reached
	if read.Done && !c.seamed {
		c.seamed = true
		c.query.After += plantedSkip
	}
	c.at.Store(c.query.After)
	c.more = !read.Done
	page := Page{AtHead: read.Done, Rows: read.Rows}
	if c.opts.UserID != wholeLog {
		c.followLife(read.Rows)
		page.Ended = read.Done && c.gone
	}
	if len(c.opts.Actions) > 0 || !c.opts.Since.IsZero() {
		page.Rows = slices.DeleteFunc(page.Rows, c.leavesOut)
	}
	return page, nil
}

// pageRead is what the store answered.
type pageRead struct {
	page user.LogPage
	err  error
}

// log returns the next page, which may have been read ahead. A row that was committed
// since then has left its signal, so that it is read after the next Wait.
func (c *Cursor) log(ctx context.Context) (user.LogPage, error) {
	if c.ahead == nil {
		return c.feed.store.Log(ctx, c.query)
	}
	read := <-c.ahead
	c.ahead = nil
	return read.page, read.err
}

// ReadAhead lets the store read the next page, if there is one, while the caller sends
// what is left of this one.
func (c *Cursor) ReadAhead(ctx context.Context) {
	if !c.more || c.ahead != nil {
		return
	}
	ahead, query := make(chan pageRead, 1), c.query
	go func() {
		var read pageRead
		defer func() {
			// On a goroutine of its own nobody further out catches a panic.
			if value := recover(); value != nil {
				read = pageRead{err: fmt.Errorf("panic: %v\n%s", value, debug.Stack())}
			}
			ahead <- read
		}()
		read.page, read.err = c.feed.store.Log(ctx, query)
	}()
	c.ahead = ahead
}

// Wait returns nil when there may be something to read, or when the timer fires;
// NewDrainingError when the server is about to stop; or the context's error.
func (c *Cursor) Wait(ctx context.Context, timer <-chan time.Time) error {
	if err := c.Drained(); err != nil {
		return err
	}
	c.at.Store(waits)
	// Nothing older than what wakes it is missing.
	defer func() { c.at.Store(c.feed.Head().Position) }()
	select {
	case <-c.woken:
		return nil
	case <-timer:
		return nil
	case <-c.feed.draining:
		return c.Drained()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Drained returns NewDrainingError once the server is about to stop, and nil before.
func (c *Cursor) Drained() error {
	if !c.feed.IsDraining() {
		return nil
	}
	return user.NewDrainingError(c.feed.Head().Epoch, c.Position())
}

func (c *Cursor) signal() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

var lifeActions = []string{user.ActionDeleted, user.ActionUndeleted, user.ActionPurged}

func (c *Cursor) followLife(rows []user.Activity) {
	for i := range rows {
		switch rows[i].Action {
		case user.ActionDeleted, user.ActionPurged:
			c.gone = true
		case user.ActionUndeleted:
			c.gone = false
		}
	}
}

func (c *Cursor) leavesOut(row user.Activity) bool {
	if row.Time.Before(c.opts.Since) {
		return true
	}
	return len(c.opts.Actions) > 0 && !slices.Contains(c.opts.Actions, row.Action)
}
