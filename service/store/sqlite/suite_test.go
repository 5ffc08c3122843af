package sqlite_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, opts storetest.Options) user.Store {
		t.Helper()
		return openFor(t, options(opts))
	})
}

// A batch that is split into several transactions has the same results.
func TestStoreWithSplitBatches(t *testing.T) {
	storetest.CompareWithModel(t, func(t *testing.T, opts storetest.Options) user.Store {
		t.Helper()
		return openFor(t, options(opts).WithSplitBatches(2))
	})
}

func options(opts storetest.Options) sqlite.Options {
	return sqlite.Options{
		Path: filepath.Join(opts.Dir, "users.db"), Clock: clock.FromWallClock(opts.Clock), Random: opts.Random,
		Logger: slog.New(slog.DiscardHandler),
	}
}

func openFor(t *testing.T, opts sqlite.Options) user.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return &checkedStore{Store: s, t: t, path: opts.Path}
}

// checkedStore checks the files when the store is closed.
type checkedStore struct {
	user.Store

	t    *testing.T
	path string
}

func (s *checkedStore) Close() error {
	if err := s.Store.Close(); err != nil {
		return err
	}
	f, err := sqlite.OpenFile(context.Background(), s.path)
	if err != nil {
		return err
	}
	findings, err := f.Check(context.Background(), nil)
	if len(findings) > 0 {
		s.t.Errorf("Check() = %q, want no findings", findings)
	}
	return err
}
