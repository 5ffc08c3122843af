package sqlite

import (
	"context"
	"strconv"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

const countEntries = "SELECT count(*) FROM terms WHERE terms MATCH ?"

// Count implements user.Store. Above MaxScanned users it estimates the number from the sample of the users: the
// share of the users that match, times the number of entries of the index.
func (s *Store) Count(ctx context.Context, query user.ListQuery) (user.Count, error) {
	query.After = nil
	matches, scanned, err := s.countMatches(ctx, &lister{List: page.NewList(query)})
	if err != nil || scanned < query.MaxScanned {
		return user.Count{Users: matches}, err
	}
	sample := &lister{source: fromTerms, match: strconv.FormatUint(uint64(tokens.Sample), tokenBase), List: page.NewList(user.ListQuery{
		Match: query.Match, ShowDeleted: query.ShowDeleted, MaxScanned: query.MaxScanned,
	})}
	if query.Where != nil {
		sample.match += " AND " + indexQuery(query.Where)
	}
	if matches, scanned, err = s.countMatches(ctx, sample); err != nil || scanned < query.MaxScanned {
		return user.Count{Users: matches * tokens.SampleRate, Estimated: true}, err
	}
	var entries int64
	err = scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		entries, _, err = r.countEntries.number(sample.match)
		return true, err
	})
	if err != nil { // the reader may still run
		return user.Count{}, err
	}
	return user.Count{Users: matches * entries / int64(scanned) * tokens.SampleRate, Estimated: true}, nil
}

// countMatches returns the number of users that match. There may be more if MaxScanned users were scanned.
func (s *Store) countMatches(ctx context.Context, l *lister) (matches int64, scanned int, err error) {
	match, n := l.Query.Match, int64(0)
	l.Query.MaxUsers, l.Query.MaxBytes = 1, 1
	l.Query.Match = func(u *user.User, keys user.Keys) bool {
		if match == nil || match(u, keys) {
			n++
		}
		return false
	}
	err = scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		err = l.read(r)
		return l.Done, err
	})
	if err != nil { // the reader may still run
		return 0, 0, err
	}
	if l.Page.Next == nil {
		l.Scanned = min(l.Scanned, l.Query.MaxScanned-1)
	}
	return n, l.Scanned, nil
}
