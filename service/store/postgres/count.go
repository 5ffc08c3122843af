package postgres

import (
	"context"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// Count implements user.Store. Above MaxScanned users it estimates the number from the sample of the users: the
// share of the users that match, times the number of users in the sample.
func (s *Store) Count(ctx context.Context, query user.ListQuery) (user.Count, error) {
	query.After = nil
	matches, scanned, err := s.countMatches(ctx, &lister{List: page.NewList(query), store: s})
	if err != nil || scanned < query.MaxScanned {
		return user.Count{Users: matches}, err
	}
	sample := &lister{
		List:  page.NewList(user.ListQuery{Match: query.Match, ShowDeleted: query.ShowDeleted, MaxScanned: query.MaxScanned}),
		store: s, match: match{drivers: []int64{number(tokens.Sample)}, exact: true},
	}
	if matches, scanned, err = s.countMatches(ctx, sample); err != nil || scanned < query.MaxScanned {
		return user.Count{Users: matches * tokens.SampleRate, Estimated: true}, err
	}
	entries, err := s.ids64(ctx, "SELECT count(*) FROM terms WHERE token = $1", number(tokens.Sample))
	if err != nil {
		return user.Count{}, err
	}
	return user.Count{Users: matches * entries[0] / int64(scanned) * tokens.SampleRate, Estimated: true}, nil
}

// countMatches returns the number of users that match. There may be more if MaxScanned users were scanned.
func (s *Store) countMatches(ctx context.Context, l *lister) (matches int64, scanned int, err error) {
	match := l.Query.Match
	l.Query.MaxUsers, l.Query.MaxBytes = 1, 1
	l.Query.Match = func(u *user.User, keys user.Keys) bool {
		if match == nil || match(u, keys) {
			matches++
		}
		return false
	}
	err = l.readAll(ctx)
	if l.Page.Next == nil {
		l.Scanned = min(l.Scanned, l.Query.MaxScanned-1)
	}
	return matches, l.Scanned, err
}
