package sqlite_test

import (
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
		Path: filepath.Join(opts.Dir, "users.db"), Clock: clock.FromWallClock(opts.Clock), Logger: slog.New(slog.DiscardHandler),
	}
}

func openFor(t *testing.T, opts sqlite.Options) user.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
