package move_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

type closer func() error

// Close implements io.Closer.
func (c closer) Close() error { return c() }

// joinClose closes all and adds their errors to err.
func joinClose(err error, all ...io.Closer) error {
	for _, c := range all {
		err = errors.Join(err, c.Close())
	}
	return err
}

// contents are what clients see of a store.
type contents struct {
	Head  user.Head
	First int64
	Users []*user.User
	Rows  []user.Activity
	Due   []int64
	// Results are those of repeated requests.
	Results []user.Result
}

// filled is a closed store with data of all kinds.
type filled struct {
	place    place
	clock    *storetest.Clock
	requests []request
	contents contents
}

// request is a change with a request id, and its user.
type request struct {
	change user.Change
	id     int64
}

// fill fills a store: users with large results, with differences between them, deleted users, a purged one, pruned rows.
func fill(t *testing.T, p place) *filled {
	t.Helper()
	f := &filled{place: p, clock: storetest.NewClock()}
	s, err := p.open(t.Context(), f.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(op user.Op) int64 {
		t.Helper()
		c := user.Change{Op: op, IdempotencyKey: &user.IdempotencyKey{ID: uuid.NewString(), Procedure: "Test", Caller: "caller ü"}}
		result, err := user.ApplyOne(t.Context(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		f.requests = append(f.requests, request{c, result.User.ID})
		return result.User.ID
	}
	var ids []int64
	for i := range 30 {
		name := fmt.Sprintf("Üser %d", i)
		op, err := user.NewCreate(user.User{
			Username: name, Email: fmt.Sprintf("user%d@example.org", i), Tags: []string{"x", name},
			Metadata: map[string]string{"k": name, "large": strings.Repeat("m", 600*(i%2))},
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, apply(op))
		f.clock.Advance(1000)
	}
	if _, err := s.Prune(t.Context(), 0, 5); err != nil {
		t.Fatal(err)
	}
	f.requests = f.requests[5:] // the results of the others have expired with their rows
	for i, id := range ids {
		large := map[string]string{"large": strings.Repeat("l", 900), "also large": strings.Repeat("a", 900)}
		for range 3 {
			large["changes"] += fmt.Sprint(i)
			apply(update(t, id, user.NewPatch(user.User{Metadata: large})))
		}
		f.clock.Advance(1000)
		apply(&user.SetStatus{ID: id, Status: user.StatusInactive})
		switch i % 10 {
		case 8:
			apply(&user.Delete{ID: id, Retention: 1000})
		case 9:
			apply(&user.Delete{ID: id, Retention: 1})
			f.clock.Advance(1000)
			purge(t, s, id)
			f.requests = slices.DeleteFunc(f.requests, func(r request) bool { return r.id == id }) // their results are erased
		}
		record(t, s, &user.Record{ID: ids[0], Action: "app.seen", Details: map[string]string{"i": fmt.Sprint(i)}})
	}
	if err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.contents = f.read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

func record(t *testing.T, s user.Store, op *user.Record) {
	t.Helper()
	if _, err := user.ApplyOne(t.Context(), s, user.Change{Op: op}); err != nil {
		t.Fatal(err)
	}
}

func update(t *testing.T, id int64, patch user.Patch) *user.Update {
	t.Helper()
	op, err := user.NewUpdate(id, patch, "")
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func purge(t *testing.T, s user.Store, id int64) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.Redact(t.Context(), id, 2); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := user.ApplyOne(t.Context(), s, user.Change{Op: &user.Purge{ID: id}}); err != nil {
		t.Fatal(err)
	}
}

// read reads the contents.
func (f *filled) read(t *testing.T, s user.Store) (c contents) {
	t.Helper()
	ctx := t.Context()
	var err, err2, err3 error
	c.Head, err = s.Head(ctx)
	c.First, err2 = s.First(ctx)
	c.Due, err3 = s.DuePurges(ctx, 1000)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, order := range []user.Order{user.ByID, user.ByUsername, user.ByLastActivity} {
		page, err := s.List(ctx, user.ListQuery{Order: order, ShowDeleted: true, MaxUsers: 1000, MaxScanned: 1000, MaxBytes: 1 << 24})
		if err != nil {
			t.Fatal(err)
		}
		c.Users = append(c.Users, page.Users...)
	}
	page, err := s.Log(ctx, user.LogQuery{Retained: true, MaxRows: 10000})
	if err != nil {
		t.Fatal(err)
	}
	c.Rows = page.Rows
	for _, request := range f.requests {
		result, err := user.ApplyOne(ctx, s, request.change)
		if err != nil {
			t.Fatal(err)
		}
		c.Results = append(c.Results, result)
	}
	return c
}

// verify opens a store and compares its contents with those of f, and closes it.
func (f *filled) verify(t *testing.T, p place) {
	t.Helper()
	s, err := p.open(t.Context(), f.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(f.contents, f.read(t, s), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("contents (-before +after):\n%s", diff)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func file(t *testing.T) place     { return place(filepath.Join(t.TempDir(), "users.db")) }
func database(t *testing.T) place { return place(pgtest.Database(t)) }

// All that clients see is the same after a move from SQLite to PostgreSQL and back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	f := fill(t, file(t))
	from := f.place
	for _, to := range []place{database(t), database(t), file(t), file(t)} {
		if err := run(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
		f.verify(t, to)
		from = to
	}
	if got, want := len(f.contents.Users), 3*27; got != want {
		t.Errorf("%d users in three orders, want %d", got, want)
	}
}

// The checkpoint of the clock is moved. PostgreSQL has no elapsed time, because its nodes run on several machines.
func TestClockIsMoved(t *testing.T) {
	t.Parallel()
	f := fill(t, file(t))
	meta := func(p place) move.Meta {
		t.Helper()
		source, err := p.source(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := source.Meta(t.Context())
		if err := joinClose(err, source); err != nil {
			t.Fatal(err)
		}
		return m
	}
	want, from := meta(f.place), f.place
	if want.Clock.Time.IsZero() || want.Clock.Boot == "" || want.Position == 0 || want.First != 6 || want.Epoch == "" {
		t.Fatalf("Meta() = %+v, want all fields", want)
	}
	for _, to := range []place{file(t), database(t), database(t), file(t)} {
		if err := run(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
		if to.isDatabase() {
			want.Clock.Elapsed, want.Clock.Boot = 0, ""
		}
		if got := meta(to); got != want {
			t.Errorf("Meta() = %+v, want %+v", got, want)
		}
		from = to
	}
}

// A store that was moved gets a new epoch when it is opened, and another one when it is moved again before.
func TestSourceIsRetired(t *testing.T) {
	t.Parallel()
	for name, newPlace := range map[string]func(*testing.T) place{"SQLite": file, "PostgreSQL": database} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fill(t, newPlace(t))
			epochs := map[string]string{f.contents.Head.Epoch: "the source"}
			moved := file(t)
			again := database(t)
			for _, to := range []place{moved, again} {
				if err := run(t.Context(), f.place, to); err != nil {
					t.Fatal(err)
				}
			}
			f.verify(t, moved)
			for _, p := range []place{f.place, again} {
				s, err := p.open(t.Context(), f.clock.Now)
				if err != nil {
					t.Fatal(err)
				}
				got := f.read(t, s)
				if other := epochs[got.Head.Epoch]; other != "" {
					t.Errorf("%s has the epoch of %s", p, other)
				}
				epochs[got.Head.Epoch] = string(p)
				got.Head.Epoch = f.contents.Head.Epoch
				if diff := gocmp.Diff(f.contents, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("contents (-before +after):\n%s", diff)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// failing fails at the nth step of a move, before or after the step has its effect.
type failing struct {
	steps, failAt int
	after         bool
}

var errPlanted = errors.New("planted failure")

func (f *failing) do(step func() error) error {
	f.steps++
	if f.steps == f.failAt && !f.after {
		return errPlanted
	}
	err := step()
	if f.steps == f.failAt {
		return errors.Join(err, errPlanted)
	}
	return err
}

type failingSource struct {
	move.Source
	*failing
}

// Retire implements move.Source.
func (s failingSource) Retire(ctx context.Context) error {
	return s.do(func() error { return s.Source.Retire(ctx) })
}

type failingTarget struct {
	move.Target
	*failing
}

// Begin implements move.Target.
func (s failingTarget) Begin(ctx context.Context, fingerprint string) (state map[string][]byte, err error) {
	return state, s.do(func() (err error) { state, err = s.Target.Begin(ctx, fingerprint); return err })
}

// Write implements move.Target.
func (s failingTarget) Write(ctx context.Context, table *move.Table, rows []move.Row, cursor []byte) error {
	return s.do(func() error { return s.Target.Write(ctx, table, rows, cursor) })
}

// BuildIndex implements move.Target.
func (s failingTarget) BuildIndex(ctx context.Context, progress func(done, total int)) error {
	return s.do(func() error { return s.Target.BuildIndex(ctx, progress) })
}

// Install implements move.Target.
func (s failingTarget) Install(ctx context.Context, m move.Meta) error {
	return s.do(func() error { return s.Target.Install(ctx, m) })
}

// Complete implements move.Target.
func (s failingTarget) Complete(ctx context.Context) error {
	return s.do(func() error { return s.Target.Complete(ctx) })
}

// A move that fails at any step continues when it is repeated. Until it is complete the target cannot be opened.
func TestInterruptedAnywhere(t *testing.T) {
	t.Parallel()
	for name, places := range map[string][2]func(*testing.T) place{"to PostgreSQL": {file, database}, "to SQLite": {database, file}} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after=%v", name, after), func(t *testing.T) {
				t.Parallel()
				f := fill(t, places[0](t))
				to := places[1](t)
				for failAt := 1; ; failAt++ {
					err := runFailing(t.Context(), f.place, to, &failing{failAt: failAt, after: after})
					if err == nil {
						break
					}
					if !errors.Is(err, errPlanted) {
						t.Fatal(err)
					}
					if failAt == 1 && !after {
						continue // the target is an empty store
					}
					if s, err := to.open(t.Context(), f.clock.Now); err == nil {
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
						break // it was the last step
					} else if !errors.Is(err, move.ErrIncomplete) {
						t.Fatalf("open after step %d: error = %v, want %v", failAt, err, move.ErrIncomplete)
					}
				}
				f.verify(t, to)
			})
		}
	}
}

// runFailing is run with small chunks and a planted failure.
func runFailing(ctx context.Context, from, to place, f *failing) error {
	source, err := from.source(ctx)
	if err != nil {
		return err
	}
	target, err := to.target(ctx)
	if err != nil {
		return joinClose(err, source)
	}
	_, err = move.Run(ctx, failingSource{source, f}, failingTarget{target, f}, move.Options{ChunkRows: 20})
	return joinClose(err, source, target)
}

// alter alters a row of a store.
func alter(t *testing.T, p place, statement string) {
	t.Helper()
	if p.isDatabase() {
		execute(t, p, statement)
		return
	}
	db, err := sql.Open("sqlite", string(p))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), statement)
	if err := joinClose(err, db); err != nil {
		t.Fatal(err)
	}
}

// altered is a target in which a row is altered before it is verified.
type altered struct {
	move.Target

	alter func()
}

// BuildIndex implements move.Target.
func (a altered) BuildIndex(ctx context.Context, progress func(done, total int)) error {
	err := a.Target.BuildIndex(ctx, progress)
	a.alter()
	return err
}

// A row that is altered, lost or added in the target is found, whatever its table.
func TestVerification(t *testing.T) {
	t.Parallel()
	for name, places := range map[string][2]func(*testing.T) place{"to PostgreSQL": {file, database}, "to SQLite": {database, file}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fill(t, places[0](t)) // a move that fails leaves it as it was
			for statement, want := range map[string]string{
				"UPDATE users SET version = version + 1 WHERE user_id = (SELECT max(user_id) FROM users)": "users: row with user_id",
				"UPDATE log SET details = NULL WHERE position = 40":                                       "log: row with position 40 differs",
				"DELETE FROM log WHERE position = 41":                                                     "log: row with position 41 differs",
				"DELETE FROM log WHERE position = (SELECT max(position) FROM log)":                        "is missing in the target",
				"INSERT INTO log VALUES (999, 1, 1, 'user.created', NULL)":                                "log: row with position 999 is not in the source",
				"UPDATE request_ids SET created_at = created_at + 1":                                      "request_ids: row with id",
				"UPDATE request_users SET kept_until = kept_until + 1":                                    "request_users: row with user_id",
				"DELETE FROM terms WHERE user_id = (SELECT max(user_id) FROM users)":                      "its entries in the index are not those of its fields",
			} {
				if strings.Contains(statement, "terms") && name == "to SQLite" {
					statement = "INSERT INTO terms (rowid, tokens) VALUES ((SELECT max(user_id) FROM users), 'zz')"
				}
				t.Run(statement, func(t *testing.T) { f.verifyAltered(t, places[1](t), statement, want) })
			}
		})
	}
}

// verifyAltered moves the store, executes a statement on the target before it is verified, and wants an error with a text.
func (f *filled) verifyAltered(t *testing.T, to place, statement, want string) {
	t.Helper()
	source, err := f.place.source(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	target, err := to.target(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = move.Run(t.Context(), source, altered{target, func() { alter(t, to, statement) }}, move.Options{})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Run() = %v, want an error with %q", err, want)
	}
	if err := joinClose(nil, source, target); err != nil {
		t.Fatal(err)
	}
	if _, err := to.open(t.Context(), f.clock.Now); !errors.Is(err, move.ErrIncomplete) {
		t.Errorf("open of the target: error = %v, want %v", err, move.ErrIncomplete)
	}
}
