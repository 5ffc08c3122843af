// Package storetest is the conformance suite for implementations of [user.Store]:
// at least one test for each requirement of its documentation, each with a new store.
// [Model] is the in-memory reference implementation.
package storetest

import (
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/yourorg/userservice/service/user"
)

// Options configures the store that [Open] opens.
type Options struct {
	// Dir is the data directory, empty at first. A store that is closed and opened
	// again with the same Dir must have the same contents.
	Dir    string
	Clock  func() time.Time
	Random io.Reader // nil: the default of the store
}

// Open opens a store for a test. The suite closes it.
type Open func(t *testing.T, opts Options) user.Store

// Run runs the whole suite on stores opened with open.
func Run(t *testing.T, open func(t *testing.T, opts Options) user.Store) {
	run(t, open, readTests, termTests)
	RunWrites(t, open)
}

// RunWrites runs the tests of the suite that depend on transactions, their retries and the publication of commits. The
// others read users at rest.
func RunWrites(t *testing.T, open func(t *testing.T, opts Options) user.Store) {
	run(t, open, logTests, writeTests, idempotencyTests, maintenanceTests, pruneTests, fairnessTests)
	runRandom(t, open)
}

// RunRestarts runs the tests of the suite that close a store and open it again, without those of lists of thousands.
func RunRestarts(t *testing.T, open func(t *testing.T, opts Options) user.Store) {
	for _, group := range []map[string]func(*harness){readTests, logTests, writeTests, idempotencyTests, maintenanceTests, pruneTests, fairnessTests} {
		for name, test := range group {
			if restartTests[name] {
				runTest(t, open, name, test)
			}
		}
	}
	runRandom(t, open)
}

func run(t *testing.T, open func(t *testing.T, opts Options) user.Store, groups ...map[string]func(*harness)) {
	for _, group := range groups {
		for name, test := range group {
			runTest(t, open, name, test)
		}
	}
}

func runTest(t *testing.T, open func(t *testing.T, opts Options) user.Store, name string, test func(*harness)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		h := &harness{T: t, opener: open, clock: NewClock(), dir: t.TempDir()}
		h.open()
		t.Cleanup(func() { h.check(h.store.Close()) })
		test(h)
		if h.restarted && !restartTests[name] {
			h.Error("the test opens the store again, but restartTests does not have it")
		}
	})
}

func runRandom(t *testing.T, open func(t *testing.T, opts Options) user.Store) {
	t.Run("random batches have the same effect as on the model", func(t *testing.T) {
		t.Parallel()
		CompareWithModel(t, open)
	})
}

// restartTests lists the tests that open the store again.
var restartTests = map[string]bool{
	"a repeated request returns the stored result, also after a restart":                      true,
	"stored results of a large user do not change with the user":                              true,
	"a request id reused for a different request is rejected":                                 true,
	"a request id expires after its lifetime":                                                 true,
	"positions and epoch continue after a restart":                                            true,
	"times do not decrease when the clock moves back":                                         true,
	"a purge keeps row positions and removes personal data":                                   true,
	"an interrupted purge leaves the user deleted and due, and is completed by a repetition":  true,
	"a later status time without a new status is stored":                                      true,
	"Probe has no visible effect":                                                             true,
	"Prune deletes the oldest rows of an age, in steps":                                       true,
	"a log without rows keeps its head":                                                       true,
	"pruning does not change users":                                                           true,
	"lists with terms have the same users as a full evaluation, in every order and direction": true,
	"acknowledged writes survive a restart":                                                   true,
	"Close waits for submitted batches; later calls fail":                                     true,
	"an ID in use is not given to another user":                                               true,
}

// Clock is a fake clock. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock set to a fixed time.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)}
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// harness is a test with an open store.
type harness struct {
	*testing.T
	opener Open
	clock  *Clock
	random io.Reader
	dir    string
	store  user.Store

	restarted bool // reopen was called
}

func (h *harness) open() {
	h.store = h.opener(h.T, Options{Dir: h.dir, Clock: h.clock.Now, Random: h.random})
}

func (h *harness) reopen() {
	h.Helper()
	h.check(h.store.Close())
	h.open()
	h.restarted = true
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
		h.Fatalf("error = %v, want reason %s", err, reason)
	}
}

// ctx returns a context with a timeout, so that a store that hangs fails the test.
func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // ends a hanging call, also on a loaded machine
	h.Cleanup(cancel)
	return ctx
}

func createOp(name string) *user.Create {
	op, err := user.NewCreate(user.User{Username: name, Email: strings.ReplaceAll(name, " ", ".") + "@example.org"})
	if err != nil {
		panic(err)
	}
	return op
}

func updateOp(id int64, patch user.Patch) *user.Update {
	op, err := user.NewUpdate(id, patch, "")
	if err != nil {
		panic(err)
	}
	return op
}

func renameOp(id int64, username string) *user.Update {
	return updateOp(id, user.NewPatch(user.User{Username: username}))
}

func metadataOp(id int64, key, value string) *user.Update {
	return updateOp(id, user.Patch{Entries: map[string]*string{key: &value}})
}

func (h *harness) apply(c user.Change) (user.Result, error) {
	return user.ApplyOne(h.ctx(), h.store, c)
}

// mustApply applies op and fails the test on an error.
func (h *harness) mustApply(op user.Op) user.Result {
	h.Helper()
	result, err := h.apply(user.Change{Op: op})
	h.check(err)
	return result
}

func (h *harness) create(name string) *user.User {
	h.Helper()
	return h.mustApply(createOp(name)).User
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

// log returns the rows of all pages of query.
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
			h.Fatalf("Log returned %d rows, want at most %d", len(page.Rows), query.MaxRows)
		}
		bytes := 0
		for i := range page.Rows[:max(0, len(page.Rows)-1)] {
			bytes += page.Rows[i].DetailBytes()
		}
		if query.MaxBytes > 0 && bytes >= query.MaxBytes {
			h.Fatalf("Log added a row after %d bytes, MaxBytes = %d", bytes, query.MaxBytes)
		}
		rows = append(rows, page.Rows...)
		switch {
		case page.Done:
			return rows
		case query.Desc && (query.Before == 0 || page.Reached < query.Before):
			query.Before = page.Reached
		case !query.Desc && page.Reached > query.After:
			query.After, query.Retained = page.Reached, false
		default:
			h.Fatalf("Log(After: %d, Before: %d): Reached = %d, no progress", query.After, query.Before, page.Reached)
		}
	}
}

// checkLog returns the whole log. It checks that positions have no gap and times never decrease.
func (h *harness) checkLog() []user.Activity {
	h.Helper()
	rows := h.log(user.LogQuery{})
	for i, row := range rows {
		if row.Position != int64(i)+1 {
			h.Fatalf("row %d has position %d", i+1, row.Position)
		}
		if i > 0 && row.Time.Before(rows[i-1].Time) {
			h.Fatalf("row %d has time %v, the previous row %v", row.Position, row.Time, rows[i-1].Time)
		}
	}
	if head := h.head(); head.Position != int64(len(rows)) {
		h.Fatalf("head position = %d, want %d", head.Position, len(rows))
	}
	return rows
}

// difference describes the differences of two values; an empty slice or map equals nil.
func difference(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return "" // much faster than Diff
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

// runConcurrently calls f in n goroutines and waits for them.
func runConcurrently(n int, f func(i int)) {
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

// opFunc is an op that calls decide.
type opFunc struct {
	id     int64
	decide func(cur *user.User, in user.CommitStamp, by user.Author) (user.Decision, error)
}

// Target implements user.Op.
func (op opFunc) Target() int64 { return op.id }

// Decide implements user.Op.
func (op opFunc) Decide(cur *user.User, in user.CommitStamp, by user.Author) (user.Decision, error) {
	return op.decide(cur, in, by)
}

var errInjected = errors.New("injected failure")

// failingOps returns an op that fails with an unexpected error and an op that panics.
func failingOps(id int64) []user.Op {
	return []user.Op{
		opFunc{id, func(*user.User, user.CommitStamp, user.Author) (user.Decision, error) {
			return user.Decision{}, errInjected
		}},
		opFunc{id, func(*user.User, user.CommitStamp, user.Author) (user.Decision, error) { panic("injected panic") }},
	}
}
