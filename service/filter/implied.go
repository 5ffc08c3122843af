package filter

import (
	"math"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// implied has conditions that all users matching an expression meet. The zero value has none.
type implied struct {
	name    bound
	updated TimeRange
	last    positionRange
	// clauses are sets of terms. A user has at least one term of each.
	clauses [][]user.Term
}

// maxTerms bounds the terms of a clause, and maxClauses the clauses of a filter. Further ones are not used.
const (
	maxTerms   = 64
	maxClauses = 8
)

// bound restricts the key of a user. The zero bound restricts nothing.
type bound struct {
	order user.Order // ByUsername or ByEmail; ByID: no bound
	key   string     // normal form, or its prefix
	exact bool       // key is the normal form, not a prefix
}

// TimeRange is a range of times. A zero bound restricts nothing.
type TimeRange struct {
	From, Until time.Time // inclusive, exclusive
}

// positionRange is a range of positions, both bounds exclusive. Before 0: no upper bound.
type positionRange struct{ after, before int64 }

// and returns what the conjunction implies.
func (a implied) and(b implied) implied {
	a.name = a.name.narrower(b.name)
	if b.updated.From.After(a.updated.From) {
		a.updated.From = b.updated.From
	}
	if until := b.updated.Until; !until.IsZero() && (a.updated.Until.IsZero() || until.Before(a.updated.Until)) {
		a.updated.Until = until
	}
	a.last.after = max(a.last.after, b.last.after)
	if b.last.before > 0 {
		a.last.before = min(b.last.before, orMax(a.last.before))
	}
	clauses := slices.Concat(a.clauses, b.clauses)
	a.clauses = clauses[:min(len(clauses), maxClauses)]
	return a
}

func orMax(before int64) int64 {
	if before == 0 {
		return math.MaxInt64
	}
	return before
}

// or returns what the disjunction implies: the union of a clause of each.
func (a implied) or(b implied) implied {
	x, y := shortest(a.clauses), shortest(b.clauses)
	if len(x) == 0 || len(y) == 0 || len(x)+len(y) > maxTerms {
		return implied{}
	}
	return implied{clauses: [][]user.Term{slices.Concat(x, y)}}
}

func shortest(clauses [][]user.Term) (short []user.Term) {
	for _, c := range clauses {
		if short == nil || len(c) < len(short) {
			short = c
		}
	}
	return short
}

// narrower returns the narrower bound: an exact key, then the longest prefix.
func (b bound) narrower(other bound) bound {
	switch {
	case !other.exact && other.key == "", b.exact:
	case other.exact, len(other.key) > len(b.key):
		return other
	}
	return b
}

// Order returns the order in which the matching users are contiguous: that of a prefix, or ByLastActivity
// for a range of times or positions of the last change. ByID if there is none, or with terms, which have
// their users in this order.
func (f *Filter) Order() user.Order {
	switch in := &f.implied; {
	case in.name.order != user.ByID:
		return in.name.order
	case len(in.clauses) == 0 && (in.last != positionRange{} || in.updated != TimeRange{}):
		return user.ByLastActivity
	}
	return user.ByID
}

// Updated returns a range with updated_at of all matching users.
func (f *Filter) Updated() TimeRange { return f.implied.updated }

// Narrow restricts the query to a part of an index. It reports whether at most one user can match: an
// exact key is the first of the keys with that prefix.
func (f *Filter) Narrow(q *user.ListQuery) (atMostOne bool) {
	in := &f.implied
	if b := in.name; b.exact {
		q.Order, q.Desc, q.Prefix, q.MaxScanned = b.order, false, b.key, 1
		return true
	} else if b.order != user.ByID && b.order == q.Order {
		q.Prefix = b.key
	}
	q.AfterActivity, q.BeforeActivity, q.Terms = in.last.after, in.last.before, in.clauses
	return false
}
