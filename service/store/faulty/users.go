package faulty

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/yourorg/userservice/service/user"
)

// changesPerFault is the number of faultless lists, users or commits per fault.
const changesPerFault = 16

type losing struct {
	user.Store

	lists atomic.Int64
}

// List implements user.Store.
func (s *losing) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	page, err := s.Store.List(ctx, query)
	if n := len(page.Users); query.Order == user.ByLastActivity && n > 0 && page.Next == nil && s.lists.Add(1)%changesPerFault == 0 {
		page.Users = page.Users[:n-1]
	}
	return page, err
}

type hiding struct {
	user.Store

	commits atomic.Int64
}

// Observe implements user.Store.
func (s *hiding) Observe(observer func(user.Commit)) {
	s.Store.Observe(func(c user.Commit) {
		if s.commits.Add(1)%changesPerFault == 0 {
			c.Changes = nil
		}
		observer(c)
	})
}

type unpurged struct{ user.Store }

// Log implements user.Store.
func (s unpurged) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	page, err := s.Store.Log(ctx, query)
	if slices.Equal(query.Actions, []string{user.ActionPurged}) {
		page.Rows = nil
	}
	return page, err
}

type stale struct {
	user.Store

	mu    sync.Mutex
	users int
	older map[int64]*user.User // the first state returned
}

// List implements user.Store.
func (s *stale) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	page, err := s.Store.List(ctx, query)
	if query.Order != user.ByLastActivity {
		return page, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, u := range page.Users {
		older := s.older[u.ID]
		if older == nil {
			s.older[u.ID] = u
			continue
		}
		if s.users++; s.users%changesPerFault == 0 {
			again := *older
			again.LastActivityID = u.LastActivityID
			page.Users[i] = &again
		}
	}
	return page, err
}

type cached struct {
	user.Store

	mu    sync.Mutex
	reads int
	read  map[int64]*user.User // by the last point read
}

// Get implements user.Store.
func (s *cached) Get(ctx context.Context, id int64) (*user.User, error) {
	u, err := s.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.read[id]
	s.read[id] = u.Clone()
	if s.reads++; last != nil && s.reads%changesPerFault == 0 {
		return last, nil
	}
	return u, nil
}
