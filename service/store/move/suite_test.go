package move_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/store/postgres"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

// withServer ends the server before the check for leaks.
type withServer struct{ *testing.M }

func (m withServer) Run() int {
	storetest.HalveChecks()
	return pgtest.Run(m.M)
}

// place is a store that is not open: a file, or a database.
type place string

func (p place) isDatabase() bool { return strings.HasPrefix(string(p), "postgres:") }

func (p place) source(ctx context.Context) (move.Source, error) {
	if p.isDatabase() {
		return postgres.OpenSource(ctx, postgres.MoveOptions{URL: string(p), Logger: slog.New(slog.DiscardHandler)})
	}
	return sqlite.OpenSource(ctx, string(p))
}

func (p place) target(ctx context.Context) (move.Target, error) {
	if p.isDatabase() {
		return postgres.OpenTarget(ctx, postgres.MoveOptions{URL: string(p), Logger: slog.New(slog.DiscardHandler)})
	}
	return sqlite.OpenTarget(ctx, string(p), slog.New(slog.DiscardHandler))
}

// open opens the store. It trusts the clock, which the tests set back.
func (p place) open(ctx context.Context, now func() time.Time) (user.Store, error) {
	source := clock.FromWallClock(now)
	if p.isDatabase() {
		return postgres.Open(ctx, postgres.Options{URL: string(p), Clock: source, TrustClock: true, Logger: slog.New(slog.DiscardHandler)})
	}
	return sqlite.Open(ctx, sqlite.Options{Path: string(p), Clock: source, TrustClock: true, Logger: slog.New(slog.DiscardHandler)})
}

// run moves a store.
func run(ctx context.Context, from, to place) error {
	source, err := from.source(ctx)
	if err != nil {
		return fmt.Errorf("open source: %w", err)
	}
	target, err := to.target(ctx)
	if err != nil {
		return fmt.Errorf("open target: %w", joinClose(err, source))
	}
	_, err = move.Run(ctx, source, target, move.Options{})
	return joinClose(err, source, target)
}

// movers moves a store each time it is opened again: from a file to a database, to a file, to another file and so on.
type movers struct {
	t       *testing.T
	mu      sync.Mutex
	current map[string]place // by folder
	moves   map[string]int
	free    []place // databases that were emptied
}

func (m *movers) open(t *testing.T, opts storetest.Options) user.Store {
	t.Helper()
	m.mu.Lock()
	from, moved := m.current[opts.Dir]
	n := m.moves[opts.Dir]
	m.moves[opts.Dir]++
	m.mu.Unlock()
	to := place(filepath.Join(opts.Dir, fmt.Sprint(n, ".db")))
	if n%3 == 1 {
		to = m.database()
	}
	if moved {
		if err := run(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
		m.empty(t, from)
	}
	m.mu.Lock()
	m.current[opts.Dir] = to
	m.mu.Unlock()
	s, err := to.open(t.Context(), opts.Clock)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// database returns a database without tables.
func (m *movers) database() place {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := len(m.free) - 1; last >= 0 {
		p := m.free[last]
		m.free = m.free[:last]
		return p
	}
	return place(pgtest.Database(m.t))
}

// empty makes a database reusable.
func (m *movers) empty(t *testing.T, p place) {
	t.Helper()
	if !p.isDatabase() {
		return
	}
	execute(t, p, "DROP SCHEMA public CASCADE")
	execute(t, p, "CREATE SCHEMA public")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, p)
}

// execute runs a statement on a database.
func execute(t *testing.T, p place, statement string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, string(p))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(ctx, statement)
	if err := joinClose(err, closer(func() error { return conn.Close(ctx) })); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

var long = flag.Bool("long", false, "move stores in all tests that open one again")

// A store that is moved each time it is opened again behaves as one that is not moved. The other tests of the suite open a
// store once, so they move none.
func TestMovedStore(t *testing.T) {
	m := &movers{t: t, current: make(map[string]place), moves: make(map[string]int)}
	suite := storetest.RunRestarts
	if *long {
		suite = storetest.Run
	}
	suite(t, m.open)
}
