package feed_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/user"
)

// panickingStore panics at the second read of the log.
type panickingStore struct {
	user.Store

	reads atomic.Int64
}

func (s *panickingStore) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	if s.reads.Add(1) == 2 {
		panic("planted")
	}
	return s.Store.Log(ctx, query)
}

// A panic of the prefetch goroutine fails only that page.
func TestPanicDuringPrefetch(t *testing.T) {
	b := newBench(t)
	b.createMany(300)
	f, err := feed.Open(t.Context(), &panickingStore{Store: b.store})
	if err != nil {
		t.Fatal(err)
	}
	cursor := f.Cursor(feed.CursorOptions{})
	defer cursor.Close()
	if _, err := cursor.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	cursor.Prefetch(t.Context())
	if _, err := cursor.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "planted") || !strings.Contains(panics.Stack(err), "panic_test.go") {
		t.Errorf("Read() error = %v, want the panic with its stack", err)
	}
}
