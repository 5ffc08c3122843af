package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// slotStore records whether its calls are made in a slot.
type slotStore struct {
	user.Store

	mu   sync.Mutex
	held []bool
}

func (s *slotStore) record(ctx context.Context) {
	slot := fair.FromContext(ctx)
	held := slot.Release()
	slot.Resume(held)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, held)
}

func (s *slotStore) Get(ctx context.Context, id int64) (*user.User, error) {
	s.record(ctx)
	return s.Store.Get(ctx, id)
}

func (s *slotStore) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	s.record(ctx)
	return s.Store.Submit(ctx, batch)
}

// Unary calls run in a slot over every protocol, so that callers share the processors.
func TestUnaryCallsRunInASlot(t *testing.T) {
	var store *slotStore
	s := servertest.Start(t, servertest.Store(func(inner user.Store) user.Store {
		store = &slotStore{Store: inner}
		return store
	}))
	created, last := 0, int64(0)
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		store.held = nil
		created++
		name := fmt.Sprint("user", created)
		response, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: name, Email: name + "@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		last = response.GetUser().GetUserId()
		if _, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: last}); err != nil {
			t.Fatal(err)
		}
		store.want(t, 2)
	})
	t.Run("REST", func(t *testing.T) {
		store.held = nil
		if status, text := fetch(t, fmt.Sprintf("%s/api/v1/users/%d", s.URL(), last)); status != http.StatusOK {
			t.Fatalf("got %d %s", status, text)
		}
		store.want(t, 1)
	})
}

// want checks that there were n calls, each in a slot.
func (s *slotStore) want(t *testing.T, n int) {
	t.Helper()
	if len(s.held) != n || slices.Contains(s.held, false) {
		t.Errorf("the calls of the store held a slot: %v, want %d times true", s.held, n)
	}
}
