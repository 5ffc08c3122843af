package filter

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/yourorg/userservice/service/user"
)

// statusPrefix is the prefix of the names of UserStatus. A filter may omit it.
const statusPrefix = "USER_STATUS_"

// hasTerm returns a condition that implies a term.
func hasTerm(term user.Term, match func(*user.User) bool) condition {
	return condition{
		func(u *user.User, _ user.Keys) bool { return match(u) },
		implied{where: []user.Condition{{Term: term}}},
	}
}

func statusRestriction(field *user.Field, operator string, value *expr.Expr) (condition, *user.Error) {
	name, ok := textOf(value)
	status := user.StatusNamed(statusPrefix + strings.TrimPrefix(name, statusPrefix))
	if !ok || !status.Valid() {
		return condition{}, newErrorf("must compare status with ACTIVE, INACTIVE or SUSPENDED, not with %s", describe(value))
	}
	is := hasTerm(field.StatusTerm(status), func(u *user.User) bool { return *field.Status(u) == status })
	switch operator {
	case filtering.FunctionEquals:
		return is, nil
	case filtering.FunctionNotEquals:
		isNot := not(is)
		var others []user.Condition
		for other := user.StatusNone + 1; other.Valid(); other++ {
			if other != status {
				others = append(others, user.Condition{Term: field.StatusTerm(other)})
			}
		}
		isNot.implied.where = []user.Condition{{Any: others}}
		return isNot, nil
	default:
		return condition{}, newErrorf("must compare status with = or !=, not %s", operator)
	}
}

// anyText is the wildcard: alone it matches every text, and at the end of a name every suffix.
const anyText = "*"

// isPattern reports whether a value, other than the wildcard alone, starts or ends with it.
func isPattern(text string) bool {
	return text != anyText && (strings.HasPrefix(text, anyText) || strings.HasSuffix(text, anyText))
}

func listRestriction(field *user.Field, operator string, value *expr.Expr) (condition, *user.Error) {
	tag, ok := textOf(value)
	switch {
	case operator != filtering.FunctionHas:
		return condition{}, newErrorf(`must match a tag with tags:"tag", not %s`, operator)
	case !ok:
		return condition{}, newErrorf(`must put the tag in quotes, as in tags:"2026"`)
	case isPattern(tag):
		return condition{}, newErrorf(`must match a whole tag, or any with tags:*, not %s`, user.Quote(tag))
	case tag == anyText:
		return hasTerm(field.PresentTerm(), func(u *user.User) bool { return len(*field.List(u)) > 0 }), nil
	}
	return hasTerm(field.ElementTerm(tag), func(u *user.User) bool { return slices.Contains(*field.List(u), tag) }), nil
}

// mapRestriction compiles metadata:"key" and metadata:*.
func mapRestriction(field *user.Field, operator string, value *expr.Expr) (condition, *user.Error) {
	key, ok := textOf(value)
	switch {
	case operator != filtering.FunctionHas:
		return condition{}, newErrorf(`must match a key with %s:"key", or a value with %[1]s.key = "value"`, field.Name)
	case !ok:
		return condition{}, newErrorf(`must put the key in quotes, as in %s:"2026"`, field.Name)
	case isPattern(key):
		return condition{}, newErrorf(`must match a whole key, or any with %s:*, not %s`, field.Name, user.Quote(key))
	case key == anyText:
		return hasTerm(field.PresentTerm(), func(u *user.User) bool { return len(*field.Map(u)) > 0 }), nil
	}
	return hasKey(field, key), nil
}

func hasKey(field *user.Field, key string) condition {
	return hasTerm(field.KeyTerm(key), func(u *user.User) bool {
		_, ok := (*field.Map(u))[key]
		return ok
	})
}

// keyRestriction compiles metadata.key = "value" and metadata.key:*.
func keyRestriction(field *user.Field, key, operator string, value *expr.Expr) (condition, *user.Error) {
	text, ok := textOf(value)
	switch {
	case operator != filtering.FunctionEquals && operator != filtering.FunctionNotEquals && operator != filtering.FunctionHas:
		return condition{}, newErrorf(`must compare a value of %s with =, != or :, not %s`, field.Name, operator)
	case !ok:
		return condition{}, newErrorf(`must put the value in quotes, as in %s.key = "2026"`, field.Name)
	case text == anyText && operator == filtering.FunctionHas:
		return hasKey(field, key), nil
	case text == anyText, isPattern(text):
		return condition{}, newErrorf(`must compare a whole value, or match any with %s.key:*, not %s`, field.Name, user.Quote(text))
	}
	is := hasTerm(field.PairTerm(key, text), func(u *user.User) bool {
		got, ok := (*field.Map(u))[key]
		return ok && got == text
	})
	return equalOrNot(is, operator), nil
}

// compareOperators are the operators of ordered values. The map is immutable.
var compareOperators = map[string]func(order int) bool{
	filtering.FunctionEquals:        func(order int) bool { return order == 0 },
	filtering.FunctionNotEquals:     func(order int) bool { return order != 0 },
	filtering.FunctionLessThan:      func(order int) bool { return order < 0 },
	filtering.FunctionLessEquals:    func(order int) bool { return order <= 0 },
	filtering.FunctionGreaterThan:   func(order int) bool { return order > 0 },
	filtering.FunctionGreaterEquals: func(order int) bool { return order >= 0 },
}

// bounds reports whether an operator sets a lower and an upper bound.
func bounds(operator string) (lower, upper bool) {
	switch operator {
	case filtering.FunctionEquals:
		return true, true
	case filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals:
		return true, false
	case filtering.FunctionLessThan, filtering.FunctionLessEquals:
		return false, true
	}
	return false, false
}

func timeRestriction(field *user.Field, operator string, value *expr.Expr) (condition, *user.Error) {
	holds := compareOperators[operator]
	if holds == nil {
		return condition{}, newErrorf("must compare %s with =, !=, <, <=, > or >=, not %s", field.Name, operator)
	}
	at, err := timeValue(field.Name, value)
	if err != nil {
		return condition{}, err
	}
	c := condition{match: func(u *user.User, _ user.Keys) bool { return holds(field.Time(u).Compare(at)) }}
	var times user.TimeRange
	lower, upper := bounds(operator)
	if lower {
		times.From = at
	}
	if upper {
		times.Until = at.Add(time.Microsecond) // the precision of stored times
	}
	switch field.Name {
	case "updated_at":
		c.implied.updated = times
	case "created_at":
		c.implied.created = times
	}
	return c, nil
}

// numberRestriction compares an integer.
func numberRestriction(field *user.Field, operator string, value *expr.Expr) (condition, *user.Error) {
	holds := compareOperators[operator]
	if holds == nil {
		return condition{}, newErrorf("must compare %s with =, !=, <, <=, > or >=, not %s", field.Name, operator)
	}
	number, ok := numberOf(value)
	if !ok {
		return condition{}, newErrorf("must compare %s with an integer from 0 to %d", field.Name, math.MaxInt64)
	}
	c := condition{match: func(u *user.User, _ user.Keys) bool { return holds(cmp.Compare(*field.Int(u), number)) }}
	if field.Name != "last_activity_id" {
		return c, nil
	}
	least, greatest := number, number // that match
	switch operator {
	case filtering.FunctionGreaterThan:
		least = number + 1
	case filtering.FunctionLessThan:
		greatest = number - 1
	}
	lower, upper := bounds(operator)
	if lower {
		c.implied.last.after = max(0, least-1) // least-1 is correct even if least overflowed
	}
	if upper && greatest < math.MaxInt64 {
		c.implied.last.before = max(1, greatest+1)
	}
	return c, nil
}

// numberOf returns a non-negative integer, which may be quoted, as JSON has positions.
func numberOf(value *expr.Expr) (int64, bool) {
	if constant, ok := value.GetConstExpr().GetConstantKind().(*expr.Constant_Int64Value); ok {
		return constant.Int64Value, constant.Int64Value >= 0
	}
	text, _ := textOf(value)
	number, err := strconv.ParseUint(text, 10, 63)
	return int64(number), err == nil
}

func timeValue(field string, value *expr.Expr) (time.Time, *user.Error) {
	if call := value.GetCallExpr(); call.GetFunction() == filtering.FunctionTimestamp && len(call.GetArgs()) == 1 {
		value = call.GetArgs()[0]
	}
	text, _ := textOf(value)
	at, err := time.Parse(time.RFC3339, text)
	_, fraction, _ := strings.Cut(text, ".")
	digits := len(fraction) - len(strings.TrimLeft(fraction, "0123456789"))
	if err != nil || digits > 9 { // which Parse truncates
		return time.Time{}, newErrorf(`must compare %s with a quoted RFC 3339 time, such as "2026-01-31T00:00:00Z"`, field)
	}
	return at, nil
}
