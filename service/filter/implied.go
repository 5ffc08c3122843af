package filter

import (
	"math"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// implied has conditions that all users matching an expression meet. The zero value has none.
type implied struct {
	name    bound
	updated user.TimeRange
	created user.TimeRange
	last    positionRange
	where   []user.Condition // conditions that an index can answer
}

// bound restricts the key of a user. The zero bound restricts nothing.
type bound struct {
	order user.Order // ByUsername or ByEmail; ByID: no bound
	key   string     // normal form, or its prefix
	exact bool       // key is the normal form, not a prefix
}

// positionRange is a range of positions, both bounds exclusive. Before 0: no upper bound.
type positionRange struct{ after, before int64 }

// and returns what the conjunction implies.
func (a implied) and(b implied) implied {
	a.name = a.name.narrower(b.name)
	a.updated, a.created = a.updated.Intersect(b.updated), a.created.Intersect(b.created)
	a.last.after = max(a.last.after, b.last.after)
	if b.last.before > 0 {
		a.last.before = min(b.last.before, orMax(a.last.before))
	}
	a.where = slices.Concat(a.where, b.where)
	return a
}

func orMax(before int64) int64 {
	if before == 0 {
		return math.MaxInt64
	}
	return before
}

// or returns what the disjunction implies.
func (a implied) or(b implied) implied {
	x, y := a.conditions(), b.conditions()
	if len(x) == 0 || len(y) == 0 {
		return implied{}
	}
	return implied{where: []user.Condition{{Any: slices.Concat(alternatives(x), alternatives(y))}}}
}

// conditions returns the conditions, with that of the name.
func (a implied) conditions() []user.Condition {
	if a.name.order == user.ByID || len(a.name.key) < user.MinContains {
		return a.where
	}
	return append(slices.Clip(a.where), user.Condition{Contains: a.name.key})
}

// alternatives returns conditions of which one is met if all of where are.
func alternatives(where []user.Condition) []user.Condition {
	if len(where) == 1 && where[0].Any != nil {
		return where[0].Any
	}
	return []user.Condition{all(where)}
}

func all(conditions []user.Condition) user.Condition {
	if len(conditions) == 1 {
		return conditions[0]
	}
	return user.Condition{All: conditions}
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
// or ByCreated for a range of times or positions. ByID if there is none, or with a
// condition, whose index is in this order.
func (f *Filter) Order() user.Order {
	switch in := &f.implied; {
	case in.name.order != user.ByID:
		return in.name.order
	case len(in.where) == 0 && (in.last != positionRange{} || in.updated != user.TimeRange{}):
		return user.ByLastActivity
	case len(in.where) == 0 && in.created != user.TimeRange{}:
		return user.ByCreated
	}
	return user.ByID
}

// Updated returns a range with updated_at of all matching users.
func (f *Filter) Updated() user.TimeRange { return f.implied.updated }

// Condition returns a condition that all matching users meet, nil if there is none.
func (f *Filter) Condition() *user.Condition {
	where := f.implied.conditions()
	if len(where) == 0 {
		return nil
	}
	condition := all(where)
	return &condition
}

// Narrow restricts the query to a part of an index. It reports whether at most one user can match: an
// exact key is the first of the keys with that prefix.
func (f *Filter) Narrow(q *user.ListQuery) (atMostOne bool) {
	in := &f.implied
	where := in.where
	if b := in.name; b.exact {
		q.Order, q.Desc, q.Prefix, q.MaxScanned = b.order, false, b.key, 1
		return true
	} else if b.order != user.ByID && b.order == q.Order {
		q.Prefix = b.key
	} else {
		where = in.conditions()
	}
	q.AfterActivity, q.BeforeActivity, q.Created = in.last.after, in.last.before, in.created
	if len(where) > 0 {
		condition := all(where)
		q.Where = &condition
	}
	return false
}
