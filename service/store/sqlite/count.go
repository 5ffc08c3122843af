package sqlite

import (
	"context"
	"strconv"

	"github.com/yourorg/userservice/service/user"
)

const countEntries = "SELECT count(*) FROM terms WHERE terms MATCH ?"

// Count implements user.Store. Above MaxScanned users it estimates the number from the sample of the users: the
// share of the users that match, times the number of entries of the index.
func (s *Store) Count(ctx context.Context, query user.ListQuery) (user.Count, error) {
	query.After = nil
	matches, scanned, err := s.countMatches(ctx, &lister{query: query})
	if err != nil || scanned < query.MaxScanned {
		return user.Count{Users: matches}, err
	}
	sample := &lister{source: fromTerms, match: strconv.FormatUint(uint64(sampleToken), tokenBase), query: user.ListQuery{
		Match: query.Match, ShowDeleted: query.ShowDeleted, MaxScanned: query.MaxScanned,
	}}
	if query.Where != nil {
		sample.match += " AND " + indexQuery(query.Where)
	}
	if matches, scanned, err = s.countMatches(ctx, sample); err != nil || scanned < query.MaxScanned {
		return user.Count{Users: matches * sampleRate, Estimated: true}, err
	}
	var entries int64
	err = scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		entries, _, err = r.countEntries.number(sample.match)
		return true, err
	})
	return user.Count{Users: matches * entries / int64(scanned) * sampleRate, Estimated: true}, err
}

// countMatches returns the number of users that match. There may be more if MaxScanned users were scanned.
func (s *Store) countMatches(ctx context.Context, l *lister) (matches int64, scanned int, err error) {
	match := l.query.Match
	l.query.MaxUsers, l.query.MaxBytes = 1, 1
	l.query.Match = func(u *user.User, keys user.Keys) bool {
		if match == nil || match(u, keys) {
			matches++
		}
		return false
	}
	err = scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		err = l.read(r)
		return l.done, err
	})
	if l.page.Next == nil {
		l.scanned = min(l.scanned, l.query.MaxScanned-1)
	}
	return matches, l.scanned, err
}
