package postgres

import (
	"context"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

const (
	// maxSorted is the largest number of users with a condition that are sorted in memory.
	maxSorted = 1000
	// gapEntries is the number of entries of a token from which its frequency is estimated.
	gapEntries = 64

	// termIDs are the users with one of some tokens, after an id.
	termIDs = "SELECT DISTINCT e.user_id FROM unnest($1::bigint[]) AS t(token) CROSS JOIN LATERAL " +
		"(SELECT user_id FROM terms WHERE terms.token = t.token AND terms.user_id > $2 ORDER BY user_id LIMIT $3) AS e " +
		"ORDER BY e.user_id LIMIT $3"
	termIDsDesc = "SELECT DISTINCT e.user_id FROM unnest($1::bigint[]) AS t(token) CROSS JOIN LATERAL " +
		"(SELECT user_id FROM terms WHERE terms.token = t.token AND terms.user_id < $2 ORDER BY user_id DESC LIMIT $3) AS e " +
		"ORDER BY e.user_id DESC LIMIT $3"
	// gaps are the number of the first entries of tokens, and the distance of their ids.
	gaps = "SELECT t.token, count(*), max(e.user_id) - min(e.user_id) FROM unnest($1::bigint[]) AS t(token) CROSS JOIN LATERAL " +
		"(SELECT user_id FROM terms WHERE terms.token = t.token ORDER BY user_id LIMIT $2) AS e GROUP BY t.token"
	// presentTerms are the tokens of some that users have.
	presentTerms = "SELECT user_id, token FROM terms WHERE token = ANY($1) AND user_id = ANY($2)"

	activityCandidates = "SELECT user_id FROM users WHERE last_activity_id > $1 AND last_activity_id < $2 LIMIT $3"
	createdCandidates  = "SELECT user_id FROM users WHERE created_at >= $1 AND created_at < $2 LIMIT $3"
)

// source is what a list reads.
type source int

const (
	fromOrder  source = iota // the index of its order
	fromTerms                // the index of terms, in the order of IDs
	fromSorted               // the few users of the index of terms, sorted in memory
)

// match is how users with a condition are found: those with one of the driving tokens are read, and of them those are
// compared with the filter that meet the condition by their tokens.
type match struct {
	drivers   []int64
	condition *user.Condition
	tokens    []int64 // of the condition
	exact     bool    // each user with a driving token meets the condition
}

func number(t tokens.Token) int64 { return int64(t) }

// conditionTokens returns the tokens of which the users of a condition have some.
func conditionTokens(c *user.Condition) (list []int64) {
	switch {
	case c.Term != "":
		return []int64{number(tokens.OfTerm(c.Term))}
	case c.Contains != "":
		for _, t := range tokens.RareParts(c.Contains) {
			list = append(list, number(t))
		}
		return list
	}
	for i := range c.Any {
		list = append(list, conditionTokens(&c.Any[i])...)
	}
	for i := range c.All {
		list = append(list, conditionTokens(&c.All[i])...)
	}
	return list
}

// meets reports whether a user with tokens may meet a condition.
func meets(c *user.Condition, has map[int64]bool) bool {
	switch {
	case c.Any != nil:
		return slices.ContainsFunc(c.Any, func(part user.Condition) bool { return meets(&part, has) })
	case c.All != nil:
		return !slices.ContainsFunc(c.All, func(part user.Condition) bool { return !meets(&part, has) })
	}
	return !slices.ContainsFunc(conditionTokens(c), func(t int64) bool { return !has[t] })
}

// drivers returns the tokens of which each user of a condition has one, with the smallest sum of frequencies.
func drivers(c *user.Condition, frequency map[int64]float64) (list []int64, sum float64) {
	alternatives := func(n int, at func(i int) ([]int64, float64)) {
		sum = math.Inf(1)
		for i := range n {
			if of, f := at(i); f < sum || list == nil {
				list, sum = of, f
			}
		}
	}
	switch {
	case c.Any != nil:
		for i := range c.Any {
			of, f := drivers(&c.Any[i], frequency)
			list, sum = append(list, of...), sum+f
		}
	case c.All != nil:
		alternatives(len(c.All), func(i int) ([]int64, float64) { return drivers(&c.All[i], frequency) })
	default:
		all := conditionTokens(c)
		alternatives(len(all), func(i int) ([]int64, float64) { return all[i : i+1], frequency[all[i]] })
	}
	return list, sum
}

// isUnion reports whether each user with one of the drivers of a condition meets it.
func isUnion(c *user.Condition) bool {
	switch {
	case c.Any != nil:
		return !slices.ContainsFunc(c.Any, func(part user.Condition) bool { return !isUnion(&part) })
	case c.All != nil:
		return len(c.All) == 1 && isUnion(&c.All[0])
	}
	return len(conditionTokens(c)) == 1
}

// planMatch chooses the driving tokens of a condition.
func (s *Store) planMatch(ctx context.Context, c *user.Condition) (match, error) {
	m := match{condition: c, tokens: conditionTokens(c)}
	slices.Sort(m.tokens)
	m.tokens = slices.Compact(m.tokens)
	frequency := make(map[int64]float64, len(m.tokens))
	if len(m.tokens) > 1 {
		err := s.query(ctx, func(rows pgx.Rows) error {
			var token, count, gap int64
			_, err := pgx.ForEachRow(rows, []any{&token, &count, &gap}, func() error {
				frequency[token] = float64(count) / math.MaxInt64 // a rare token
				if count == gapEntries {
					frequency[token] = float64(count) / float64(max(gap, 1))
				}
				return nil
			})
			return err
		}, gaps, m.tokens, gapEntries)
		if err != nil {
			return m, err
		}
	}
	m.drivers, _ = drivers(c, frequency)
	m.exact = isUnion(c)
	return m, nil
}

// plan chooses the source. The users of a range or a condition that are not contiguous in the order are sorted if
// they are few; otherwise the index of the order is scanned, or that of terms for the order by ID.
func (l *lister) plan(ctx context.Context) (err error) {
	q := &l.Query
	if q.Where != nil && l.match.drivers == nil {
		if l.match, err = l.store.planMatch(ctx, q.Where); err != nil {
			return err
		}
	}
	after, before := l.Positions()
	from, until := page.Micros(q.Created)
	for _, c := range []struct {
		use   bool
		query string
		args  []any
	}{
		{q.AfterActivity+q.BeforeActivity > 0 && q.Order != user.ByLastActivity, activityCandidates, []any{after, before}},
		{q.Created != user.TimeRange{} && q.Order != user.ByCreated, createdCandidates, []any{from, until}},
		{q.Where != nil && q.Order != user.ByID, termIDs, []any{l.match.drivers, int64(math.MinInt64)}},
	} {
		if !c.use {
			continue
		}
		ids, err := l.store.ids64(ctx, c.query, append(c.args, maxSorted+1)...)
		if err != nil {
			return err
		}
		if len(ids) <= maxSorted {
			l.source, l.ids = fromSorted, ids
			return nil
		}
	}
	l.source = fromOrder
	if q.Where != nil && q.Order == user.ByID || l.match.drivers != nil && q.Where == nil {
		l.source = fromTerms
	}
	return nil
}

// termChunk reads the next candidates of the condition, in the order of IDs, and the users that may meet it. All
// candidates count as scanned. It reads one more than it may scan, to detect the end.
func (l *lister) termChunk(ctx context.Context) (use func(), err error) {
	statement := termIDs
	if l.Query.Desc {
		statement = termIDsDesc
	}
	limit := min(l.Query.MaxScanned-l.Scanned, chunkRows-1)
	ids, err := l.store.ids64(ctx, statement, l.match.drivers, l.ID(), limit+1)
	if err != nil {
		return nil, err
	}
	more := len(ids) > limit
	ids = ids[:min(len(ids), limit)]
	meeting := ids
	if !l.match.exact && len(ids) > 0 {
		if meeting, err = l.meeting(ctx, ids); err != nil {
			return nil, err
		}
	}
	users, err := l.usersByID(ctx, meeting)
	return func() {
		scanned := l.Scanned + len(ids)
		for _, id := range meeting {
			if u, exists := users[id]; exists && !l.Done {
				l.Add(u.user, u.keys)
			}
		}
		switch {
		case l.Done:
		case !more:
			l.Scanned = scanned
			l.End()
		case limit == 0:
			l.Add(nil, user.Keys{}) // ends the page
		default:
			l.Scanned, l.Cursor = scanned, &user.ListCursor{ID: ids[len(ids)-1]}
		}
	}, err
}

// meeting returns the ids of users whose tokens meet the condition.
func (l *lister) meeting(ctx context.Context, ids []int64) (meeting []int64, err error) {
	has := make(map[int64]map[int64]bool, len(ids))
	err = l.store.query(ctx, func(rows pgx.Rows) error {
		var id, token int64
		_, err := pgx.ForEachRow(rows, []any{&id, &token}, func() error {
			if has[id] == nil {
				has[id] = make(map[int64]bool)
			}
			has[id][token] = true
			return nil
		})
		return err
	}, presentTerms, l.match.tokens, ids)
	for _, id := range ids {
		if meets(l.match.condition, has[id]) {
			meeting = append(meeting, id)
		}
	}
	return meeting, err
}
