// Package storetest is the suite that every store passes: one test for each "must"
// of the contract at [user.Store], each with a fresh store. Model is a store in
// memory, obviously right, that the others are compared with.
//
// A fault found in one store becomes a test here, and so holds for all of them.
package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// Options say which store a test wants.
type Options struct {
	// Dir stands for the data: a second open with the same Dir, after Close, must
	// give the same store again. It is a folder of the test's own, empty at first.
	Dir string
	// Clock is the store's clock.
	Clock func() time.Time
}

// Open opens a store for a test. The suite closes it.
type Open func(t *testing.T, opts Options) user.Store

// Run runs the whole suite on stores that open gives.
func Run(t *testing.T, open func(t *testing.T, opts Options) user.Store) {
	for _, group := range []map[string]func(*harness){logTests, writeTests, onceTests, readTests, keepTests, fairTests} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := &harness{T: t, opener: open, clock: NewClock(), dir: t.TempDir()}
				h.open()
				t.Cleanup(func() { h.check(h.store.Close()) })
				test(h)
			})
		}
	}
	t.Run("it does what the model does", func(t *testing.T) {
		t.Parallel()
		CompareWithModel(t, open)
	})
}

// Clock is a clock that a test sets. It is safe for use by many goroutines.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at some time.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)}
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the time on, or back.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// harness is one test with its store.
type harness struct {
	*testing.T
	opener Open
	clock  *Clock
	dir    string
	store  user.Store
}

func (h *harness) open() {
	h.store = h.opener(h.T, Options{Dir: h.dir, Clock: h.clock.Now})
}

func (h *harness) reopen() {
	h.Helper()
	h.check(h.store.Close())
	h.open()
}

func (h *harness) check(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("unexpected error: %v", err)
	}
}

func (h *harness) wantReason(err error, reason user.Reason) {
	h.Helper()
	if !user.HasReason(err, reason) {
		h.Fatalf("error %v, want one with reason %s", err, reason)
	}
}

// ctx ends long after any healthy test, so that a store that hangs is told of.
func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	h.Cleanup(cancel)
	return ctx
}

func creating(name string) *user.Create {
	op, err := user.NewCreate(name, strings.ReplaceAll(name, " ", ".")+"@example.org", nil, nil)
	if err != nil {
		panic(err)
	}
	return op
}

func updating(id int64, patch user.Patch) *user.Update {
	op, err := user.NewUpdate(id, patch, "")
	if err != nil {
		panic(err)
	}
	return op
}

func renaming(id int64, username string) *user.Update {
	return updating(id, user.Patch{Username: &username})
}

func noting(id int64, key, value string) *user.Update {
	return updating(id, user.Patch{Entries: map[string]*string{key: &value}})
}

// apply carries one change out and returns its result.
func (h *harness) apply(c user.Change) (user.Result, error) {
	return user.ApplyOne(h.ctx(), h.store, c)
}

// do carries an op out that must succeed.
func (h *harness) do(op user.Op) user.Result {
	h.Helper()
	result, err := h.apply(user.Change{Op: op})
	h.check(err)
	return result
}

func (h *harness) create(name string) *user.User {
	h.Helper()
	return h.do(creating(name)).User
}

func (h *harness) head() user.Head {
	h.Helper()
	head, err := h.store.Head(h.ctx())
	h.check(err)
	return head
}

func (h *harness) get(id int64) *user.User {
	h.Helper()
	u, err := h.store.Get(h.ctx(), id)
	h.check(err)
	return u
}

// log reads what the query asks for, over all pages.
func (h *harness) log(query user.LogQuery) []user.Activity {
	h.Helper()
	if query.MaxRows == 0 {
		query.MaxRows = 100
	}
	var rows []user.Activity
	for {
		page, err := h.store.Log(h.ctx(), query)
		h.check(err)
		if len(page.Rows) > query.MaxRows {
			h.Fatalf("a page of %d rows, at most %d were asked for", len(page.Rows), query.MaxRows)
		}
		bytes := 0
		for i := range page.Rows[:max(0, len(page.Rows)-1)] {
			bytes += page.Rows[i].DetailBytes()
		}
		if query.MaxBytes > 0 && bytes >= query.MaxBytes {
			h.Fatalf("a page of %d bytes and a row more, when it was to end at %d", bytes, query.MaxBytes)
		}
		rows = append(rows, page.Rows...)
		switch {
		case page.Done:
			return rows
		case query.Desc && (query.Before == 0 || page.Reached < query.Before):
			query.Before = page.Reached
		case !query.Desc && page.Reached > query.After:
			query.After = page.Reached
		default:
			h.Fatalf("the page after %d, before %d reaches %d: no step on", query.After, query.Before, page.Reached)
		}
	}
}

// checkLog checks that the log has no gap and that its times never go back.
func (h *harness) checkLog() []user.Activity {
	h.Helper()
	rows := h.log(user.LogQuery{})
	for i, row := range rows {
		if row.Position != int64(i)+1 {
			h.Fatalf("row %d has position %d", i+1, row.Position)
		}
		if i > 0 && row.Time.Before(rows[i-1].Time) {
			h.Fatalf("row %d is of %v, the one in front of it of %v", row.Position, row.Time, rows[i-1].Time)
		}
	}
	if head := h.head(); head.Position != int64(len(rows)) {
		h.Fatalf("the head is %d, the log has %d rows", head.Position, len(rows))
	}
	return rows
}

// together runs f n times at once and waits.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// opFunc is an op whose decision is a function.
type opFunc struct {
	id     int64
	decide func(cur *user.User, in user.Moment, by user.Author) (user.Decision, error)
}

// Target is the user.
func (op opFunc) Target() int64 { return op.id }

// Decide calls the function.
func (op opFunc) Decide(cur *user.User, in user.Moment, by user.Author) (user.Decision, error) {
	return op.decide(cur, in, by)
}

var errPlanned = errors.New("planned failure")

// breaking returns ops that fail in ways nobody expects.
func breaking(id int64) []user.Op {
	return []user.Op{
		opFunc{id, func(*user.User, user.Moment, user.Author) (user.Decision, error) { return user.Decision{}, errPlanned }},
		opFunc{id, func(*user.User, user.Moment, user.Author) (user.Decision, error) { panic("planned panic") }},
	}
}
