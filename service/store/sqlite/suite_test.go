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
		s, err := sqlite.Open(t.Context(), sqlite.Options{
			Path: filepath.Join(opts.Dir, "users.db"), Clock: clock.Steady(opts.Clock),
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
