package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/store/postgres"
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

// migrated is a database with the current schema.
var migrated pgtest.Template

func newDatabase(t testing.TB) string {
	t.Helper()
	return migrated.Database(t, func(url string) error {
		s, err := postgres.Open(context.Background(), postgres.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		return s.Close()
	})
}

// databases opens the stores of a test and its subtests: one database for each subtest that runs. It is reset for another
// folder and another subtest, because a database has some hundred files, which are slow to create and to delete.
type databases struct {
	*testing.T

	mu   sync.Mutex
	free []*database
	used map[*testing.T]*database
}

type database struct {
	url, dir string
	tables   []string
}

func (d *databases) open(t *testing.T, opts storetest.Options, change func(*postgres.Options)) user.Store {
	t.Helper()
	db := d.of(t)
	if db.dir != opts.Dir {
		db.reset(t)
		db.dir = opts.Dir
	}
	o := postgres.Options{URL: db.url, Clock: clock.FromWallClock(opts.Clock), Random: opts.Random, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	s, err := postgres.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// of returns the database of a subtest.
func (d *databases) of(t *testing.T) *database {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if db := d.used[t]; db != nil {
		return db
	}
	var db *database
	if last := len(d.free) - 1; last >= 0 {
		db, d.free = d.free[last], d.free[:last]
	} else {
		db = &database{url: newDatabase(d.T)}
		db.keepInitial(t)
	}
	if d.used == nil {
		d.used = make(map[*testing.T]*database)
	}
	d.used[t] = db
	t.Cleanup(func() { // after the store was closed
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.used, t)
		d.free = append(d.free, db)
	})
	return db
}

// keepInitial copies the rows of all tables, for reset.
func (db *database) keepInitial(t *testing.T) {
	t.Helper()
	db.connected(t, func(conn *pgx.Conn) error {
		rows, err := conn.Query(t.Context(), "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'")
		if err != nil {
			return err
		}
		if db.tables, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
		statements := "CREATE SCHEMA initial"
		for _, table := range db.tables {
			statements += fmt.Sprintf("; CREATE TABLE initial.%s AS TABLE public.%s", table, table)
		}
		_, err = conn.Exec(t.Context(), statements)
		return err
	})
}

// reset makes the rows those of a new database.
func (db *database) reset(t *testing.T) {
	t.Helper()
	statements := "TRUNCATE " + strings.Join(db.tables, ", ")
	for _, table := range db.tables {
		statements += fmt.Sprintf("; INSERT INTO %s SELECT * FROM initial.%s", table, table)
	}
	db.connected(t, func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), statements)
		return err
	})
}

func (db *database) connected(t *testing.T, f func(*pgx.Conn) error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.url)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f(conn), conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

var long = flag.Bool("long", false, "run the whole suite with faults")

// The suite also passes without notifications, with transactions that fail with conflicts, and with commits whose
// response is lost: in the short form its tests of writes, which are the ones that depend on transactions.
func TestStoreWithFaults(t *testing.T) {
	d := &databases{T: t}
	suite := storetest.RunWrites
	if *long {
		suite = storetest.Run
	}
	suite(t, func(t *testing.T, opts storetest.Options) user.Store {
		t.Helper()
		return d.open(t, opts, func(o *postgres.Options) { *o = o.WithFaults() })
	})
}

func TestStore(t *testing.T) {
	d := &databases{T: t}
	storetest.Run(t, func(t *testing.T, opts storetest.Options) user.Store {
		t.Helper()
		return d.open(t, opts, nil)
	})
}
