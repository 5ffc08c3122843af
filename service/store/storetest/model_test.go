package storetest_test

import (
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModel(t *testing.T) {
	var models sync.Map // Options.Dir -> the last model opened there
	storetest.Run(t, func(t *testing.T, opts storetest.Options) user.Store {
		t.Helper()
		m := storetest.NewModel(opts.Clock)
		if old, ok := models.Load(opts.Dir); ok {
			closed, _ := old.(*storetest.Model)
			m = closed.Reopen(opts.Clock)
		}
		models.Store(opts.Dir, m)
		return m
	})
}
