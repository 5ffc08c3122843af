package postgres_test

import (
	"context"
	"flag"
	"log/slog"
	"sync"
	"testing"

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

// databases opens stores: one database for each folder.
type databases struct{ urls sync.Map }

func (d *databases) open(t *testing.T, opts storetest.Options, change func(*postgres.Options)) user.Store {
	t.Helper()
	url, known := d.urls.Load(opts.Dir)
	if !known {
		url = newDatabase(t)
		d.urls.Store(opts.Dir, url)
	}
	address, _ := url.(string)
	o := postgres.Options{URL: address, Clock: clock.FromWallClock(opts.Clock), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	s, err := postgres.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var long = flag.Bool("long", false, "run the whole suite with faults")

// The suite also passes without notifications, with transactions that fail with conflicts, and with commits whose
// response is lost: in the short form its tests of writes, which are the ones that depend on transactions.
func TestStoreWithFaults(t *testing.T) {
	d := &databases{}
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
	d := &databases{}
	storetest.Run(t, func(t *testing.T, opts storetest.Options) user.Store {
		t.Helper()
		return d.open(t, opts, nil)
	})
}
