package service_test

import (
	"context"

	"github.com/yourorg/userservice/service/user"
)

// spyStore records list queries and may return results in place of its store.
type spyStore struct {
	user.Store

	queries *[]user.ListQuery
	batches func(user.Batch) ([]user.Result, error, bool)
}

func (s spyStore) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	if s.queries != nil {
		*s.queries = append(*s.queries, query)
	}
	return s.Store.List(ctx, query)
}

func (s spyStore) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	if s.batches != nil {
		if results, err, mine := s.batches(batch); mine {
			pending, complete := user.NewPending()
			complete(results, err)
			return pending
		}
	}
	return s.Store.Submit(ctx, batch)
}
