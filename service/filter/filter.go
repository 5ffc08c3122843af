// Package filter compiles filters in the language of AIP-160 to predicates on users, with the part of
// an index that has all matching users.
//
// Only the parser is of the library. Its type checker is not used, because its errors do not
// state the expected syntax and it cannot compare normal forms.
package filter

import (
	"errors"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/yourorg/userservice/service/user"
)

// predicate reports whether a user matches. The keys are the normal forms of its names.
type predicate func(*user.User, user.Keys) bool

// Filter is a compiled filter.
type Filter struct {
	Match func(*user.User, user.Keys) bool // nil: all users match
	bound bound
}

// Order returns the order in which the matching users are contiguous, else ByID.
func (f *Filter) Order() user.Order { return f.bound.order }

// bound restricts the key of all matching users, so that an index can find them. The zero
// bound restricts nothing.
type bound struct {
	order user.Order // ByUsername or ByEmail; ByID: no bound
	key   string     // normal form, or its prefix
	exact bool       // key is the normal form, not a prefix
}

// Narrow restricts the query to a part of an index if its order allows it. It reports whether at
// most one user can match: an exact key is the first of the keys with that prefix.
func (f *Filter) Narrow(q *user.ListQuery) (atMostOne bool) {
	switch b := f.bound; {
	case b.exact:
		q.Order, q.Desc, q.Prefix, q.MaxScanned = b.order, false, b.key, 1
		return true
	case b.order != user.ByID && b.order == q.Order:
		q.Prefix = b.key
	}
	return false
}

// Parse compiles an AIP-160 filter. An unsupported filter is an INVALID_FIELD error.
func Parse(text string) (Filter, error) {
	if strings.TrimSpace(text) == "" {
		return Filter{}, nil
	}
	var parser filtering.Parser
	parser.Init(text)
	parsed, err := parser.Parse()
	if err != nil {
		return Filter{}, newSyntaxError(err)
	}
	var f Filter
	match, invalid := f.compile(parsed.GetExpr(), true)
	if invalid != nil {
		return Filter{}, invalid
	}
	f.Match = match
	return f, nil
}

// compile compiles an expression. required reports whether the filter implies the expression,
// so that it may bound the scan.
func (f *Filter) compile(e *expr.Expr, required bool) (predicate, *user.Error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, newErrorf("must consist of restrictions such as status = ACTIVE, not %s alone", describe(e))
	}
	args := call.GetArgs()
	switch name := call.GetFunction(); name {
	case filtering.FunctionAnd:
		return f.binary(args, required, func(a, b predicate) predicate {
			return func(u *user.User, k user.Keys) bool { return a(u, k) && b(u, k) }
		})
	case filtering.FunctionOr:
		return f.binary(args, false, func(a, b predicate) predicate {
			return func(u *user.User, k user.Keys) bool { return a(u, k) || b(u, k) }
		})
	case filtering.FunctionNot:
		inner, err := f.compile(args[0], false)
		if err != nil {
			return nil, err
		}
		return func(u *user.User, k user.Keys) bool { return !inner(u, k) }, nil
	case filtering.FunctionFuzzyAnd:
		return nil, newErrorf("must join restrictions with AND or OR")
	case filtering.FunctionEquals, filtering.FunctionNotEquals, filtering.FunctionHas,
		filtering.FunctionLessThan, filtering.FunctionLessEquals,
		filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals:
		return f.restriction(args[0], name, args[1], required)
	default:
		return nil, newErrorf("must not call %s; only timestamp(\"…\") is supported, on the right of a comparison", user.Quote(name))
	}
}

func (f *Filter) binary(
	args []*expr.Expr, required bool, join func(a, b predicate) predicate,
) (predicate, *user.Error) {
	a, err := f.compile(args[0], required)
	if err != nil {
		return nil, err
	}
	b, err := f.compile(args[1], required)
	if err != nil {
		return nil, err
	}
	return join(a, b), nil
}

// restriction compiles "field operator value".
func (f *Filter) restriction(left *expr.Expr, operator string, value *expr.Expr, required bool) (predicate, *user.Error) {
	name, _ := textOf(left)
	field := user.FindField(name)
	if field == nil || !field.Filterable {
		return nil, newErrorf("must compare %s, not %s", joinOr(user.FilterableFields().Names()), describe(left))
	}
	switch {
	case field.Status != nil:
		return statusRestriction(operator, value)
	case field.List != nil:
		return listRestriction(field, operator, value)
	case field.Time != nil:
		return timeRestriction(field, operator, value)
	default:
		return f.nameRestriction(field.Name, operator, value, required)
	}
}

func joinOr(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func newErrorf(format string, args ...any) *user.Error {
	return user.NewFieldErrorf("filter", format, args...)
}

// newSyntaxError returns the position and message of the innermost parser error, that of
// the token.
func newSyntaxError(err error) *user.Error {
	type positioned interface {
		error
		Position() filtering.Position
		Message() string
	}
	var deepest positioned
	for errors.As(err, &deepest) {
		err = errors.Unwrap(deepest)
	}
	if deepest == nil {
		return newErrorf("must be an AIP-160 filter")
	}
	reason := deepest.Message()
	if err != nil { // incomplete token, usually at the end of the text
		reason = "unexpected end"
	}
	return newErrorf("must be an AIP-160 filter: at character %d: %s",
		deepest.Position().Column, reason)
}

// textOf returns the text of a name or a string: username, "ann", or a.b.c.
func textOf(e *expr.Expr) (string, bool) {
	switch kind := e.GetExprKind().(type) {
	case *expr.Expr_IdentExpr:
		return kind.IdentExpr.GetName(), true
	case *expr.Expr_SelectExpr:
		operand, ok := textOf(kind.SelectExpr.GetOperand())
		return operand + "." + kind.SelectExpr.GetField(), ok
	case *expr.Expr_ConstExpr:
		if s, ok := kind.ConstExpr.GetConstantKind().(*expr.Constant_StringValue); ok {
			return s.StringValue, true
		}
	}
	return "", false
}

func describe(e *expr.Expr) string {
	if text, ok := textOf(e); ok {
		return user.Quote(text)
	}
	if call := e.GetCallExpr(); call != nil {
		return user.Quote(call.GetFunction())
	}
	return "a number"
}
