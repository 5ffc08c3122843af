package feed_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// brittleStore panics when the log is read for a second time.
type brittleStore struct {
	user.Store

	reads atomic.Int64
}

func (s *brittleStore) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	if s.reads.Add(1) == 2 {
		panic("planted")
	}
	return s.Store.Log(ctx, query)
}

// The next page is read on a goroutine of its own, whose panic is the failure of that
// page alone.
func TestPanicWhileReadingAhead(t *testing.T) {
	b := newBench(t)
	b.createMany(300)
	f, err := feed.Open(t.Context(), &brittleStore{Store: b.store})
	if err != nil {
		t.Fatal(err)
	}
	cursor := f.Cursor(feed.CursorOptions{})
	defer cursor.Close()
	if _, err := cursor.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	cursor.ReadAhead(t.Context())
	if _, err := cursor.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), "panic_test.go") {
		t.Errorf("got %v", err)
	}
}
