package filter

import (
	"slices"
	"strings"
	"time"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/yourorg/userservice/service/user"
)

// statusPrefix is the prefix of the names of UserStatus. A filter may omit it.
const statusPrefix = "USER_STATUS_"

func statusRestriction(operator string, value *expr.Expr) (predicate, *user.Error) {
	name, ok := textOf(value)
	status := user.StatusNamed(statusPrefix + strings.TrimPrefix(name, statusPrefix))
	if !ok || !status.Valid() {
		return nil, newErrorf("must compare status with ACTIVE, INACTIVE or SUSPENDED, not with %s", describe(value))
	}
	switch operator {
	case filtering.FunctionEquals:
		return func(u *user.User, _ user.Keys) bool { return u.Status == status }, nil
	case filtering.FunctionNotEquals:
		return func(u *user.User, _ user.Keys) bool { return u.Status != status }, nil
	default:
		return nil, newErrorf("must compare status with = or !=, not %s", operator)
	}
}

// anyText is the wildcard: it matches every text, and at the end of a value every suffix.
const anyText = "*"

func listRestriction(field *user.Field, operator string, value *expr.Expr) (predicate, *user.Error) {
	tag, ok := textOf(value)
	switch {
	case operator != filtering.FunctionHas:
		return nil, newErrorf(`must match a tag with tags:"tag", not %s`, operator)
	case !ok:
		return nil, newErrorf(`must put the tag in quotes, as in tags:"2026"`)
	case tag == anyText:
		return func(u *user.User, _ user.Keys) bool { return len(*field.List(u)) > 0 }, nil
	}
	return func(u *user.User, _ user.Keys) bool { return slices.Contains(*field.List(u), tag) }, nil
}

// nameRestriction compares the normal form of a username or an e-mail address.
func (f *Filter) nameRestriction(
	field, operator string, value *expr.Expr, required bool,
) (predicate, *user.Error) {
	if operator != filtering.FunctionEquals && operator != filtering.FunctionNotEquals {
		return nil, newErrorf(`must compare %s with = or !=, not %s; the value may end with *`, field, operator)
	}
	text, ok := textOf(value)
	if !ok {
		return nil, newErrorf(`must put the value of %s in quotes`, field)
	}
	b, err := nameBound(field, text)
	if err != nil {
		return nil, err
	}
	if operator == filtering.FunctionNotEquals {
		matches := b.matches()
		return func(u *user.User, k user.Keys) bool { return !matches(u, k) }, nil
	}
	if required {
		f.tighten(b)
	}
	return b.matches(), nil
}

func nameBound(field, text string) (bound, *user.Error) {
	b := bound{order: user.ByUsername}
	exactKey, prefixKey := user.UsernameKey, user.UsernamePrefix
	if field == "email" {
		b.order, exactKey, prefixKey = user.ByEmail, user.EmailKey, user.EmailPrefix
	}
	var err *user.Error
	if prefix, isPrefix := strings.CutSuffix(text, anyText); isPrefix {
		b.key, err = prefixKey(prefix)
	} else {
		b.exact = true
		b.key, err = exactKey(text)
	}
	if err != nil {
		return bound{}, newErrorf("must compare %s with a valid value, which %s", field, err.Violations[0].Message)
	}
	return b, nil
}

func (b bound) matches() predicate {
	key, byUsername := b.key, b.order == user.ByUsername
	same := strings.HasPrefix
	if b.exact {
		same = func(s, key string) bool { return s == key }
	}
	return func(_ *user.User, k user.Keys) bool {
		if byUsername {
			return same(k.Username, key)
		}
		return same(k.Email, key)
	}
}

// tighten keeps the narrowest bound: an exact key, then the longest prefix.
func (f *Filter) tighten(b bound) {
	switch {
	case !b.exact && b.key == "", f.bound.exact:
	case b.exact, len(b.key) > len(f.bound.key):
		f.bound = b
	}
}

func timeRestriction(field *user.Field, operator string, value *expr.Expr) (predicate, *user.Error) {
	if operator == filtering.FunctionHas {
		return nil, newErrorf("must compare %s with =, !=, <, <=, > or >=, not %s", field.Name, operator)
	}
	at, err := timeValue(field.Name, value)
	if err != nil {
		return nil, err
	}
	compare := func(holds func(order int) bool) predicate {
		return func(u *user.User, _ user.Keys) bool { return holds(field.Time(u).Compare(at)) }
	}
	switch operator {
	case filtering.FunctionEquals:
		return compare(func(order int) bool { return order == 0 }), nil
	case filtering.FunctionNotEquals:
		return compare(func(order int) bool { return order != 0 }), nil
	case filtering.FunctionLessThan:
		return compare(func(order int) bool { return order < 0 }), nil
	case filtering.FunctionLessEquals:
		return compare(func(order int) bool { return order <= 0 }), nil
	case filtering.FunctionGreaterThan:
		return compare(func(order int) bool { return order > 0 }), nil
	default:
		return compare(func(order int) bool { return order >= 0 }), nil
	}
}

func timeValue(field string, value *expr.Expr) (time.Time, *user.Error) {
	if call := value.GetCallExpr(); call.GetFunction() == filtering.FunctionTimestamp && len(call.GetArgs()) == 1 {
		value = call.GetArgs()[0]
	}
	text, _ := textOf(value)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, newErrorf(`must compare %s with a quoted RFC 3339 time, such as "2026-01-31T00:00:00Z"`, field)
	}
	return at, nil
}
