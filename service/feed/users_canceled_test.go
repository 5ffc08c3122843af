package feed_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// abandonedStore fails lists, and calls Match afterwards, as a store whose reader has not noticed yet that the
// context was canceled.
type abandonedStore struct {
	*storetest.Model
	readers sync.WaitGroup
}

func (s *abandonedStore) List(_ context.Context, query user.ListQuery) (user.ListPage, error) {
	s.readers.Go(func() { query.Match(&user.User{ID: 1, Status: user.StatusActive}, user.Keys{}) })
	return user.ListPage{}, context.Canceled
}

// A failed read does not use the results of calls of Match that are still running. The race detector finds it.
func TestFailedReadIgnoresMatch(t *testing.T) {
	store := &abandonedStore{Model: storetest.NewModel(nil)}
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	c := f.UserCursor(feed.UserCursorOptions{})
	defer c.Close()
	for range 100 {
		if page, err := c.Read(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("Read() = %+v, %v, want the error of the store", page, err)
		}
	}
	store.readers.Wait()
}
