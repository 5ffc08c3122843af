// Package filter compiles filters in the language of AIP-160 to predicates on users, with conditions that
// indexes can answer.
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

	implied implied
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
	compiled, invalid := compile(parsed.GetExpr())
	if invalid != nil {
		return Filter{}, invalid
	}
	return Filter{Match: compiled.match, implied: compiled.implied}, nil
}

// condition is a compiled expression.
type condition struct {
	match   predicate
	implied implied
}

func compile(e *expr.Expr) (condition, *user.Error) {
	call := e.GetCallExpr()
	if call == nil {
		return condition{}, newErrorf("must consist of restrictions such as status = ACTIVE, not %s alone", describe(e))
	}
	args := call.GetArgs()
	switch name := call.GetFunction(); name {
	case filtering.FunctionAnd:
		return compileBoth(args, func(a, b condition) condition {
			return condition{func(u *user.User, k user.Keys) bool { return a.match(u, k) && b.match(u, k) }, a.implied.and(b.implied)}
		})
	case filtering.FunctionOr:
		return compileBoth(args, func(a, b condition) condition {
			return condition{func(u *user.User, k user.Keys) bool { return a.match(u, k) || b.match(u, k) }, a.implied.or(b.implied)}
		})
	case filtering.FunctionNot:
		c, err := compile(args[0])
		return not(c), err
	case filtering.FunctionFuzzyAnd:
		return condition{}, newErrorf("must join restrictions with AND or OR")
	case filtering.FunctionEquals, filtering.FunctionNotEquals, filtering.FunctionHas,
		filtering.FunctionLessThan, filtering.FunctionLessEquals,
		filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals:
		return restriction(args[0], name, args[1])
	default:
		return condition{}, newErrorf("must not call %s; only timestamp(\"…\") is supported, on the right of a comparison", user.Quote(name))
	}
}

func compileBoth(args []*expr.Expr, join func(a, b condition) condition) (condition, *user.Error) {
	a, err := compile(args[0])
	if err != nil {
		return condition{}, err
	}
	b, err := compile(args[1])
	if err != nil {
		return condition{}, err
	}
	return join(a, b), nil
}

// not returns the negation, which implies nothing.
func not(c condition) condition {
	return condition{match: func(u *user.User, k user.Keys) bool { return !c.match(u, k) }}
}

// restriction compiles "field operator value".
func restriction(left *expr.Expr, operator string, value *expr.Expr) (condition, *user.Error) {
	name, _ := textOf(left)
	if name == searchField {
		return searchRestriction(operator, value)
	}
	name, key, hasKey := strings.Cut(name, ".")
	field := user.FindField(name)
	if field == nil || !field.Filterable || hasKey && field.Map == nil {
		return condition{}, newErrorf("must compare %s, not %s", joinOr(append(user.FilterableFields().Names(), searchField)), describe(left))
	}
	switch {
	case field.Status != nil:
		return statusRestriction(field, operator, value)
	case field.List != nil:
		return listRestriction(field, operator, value)
	case hasKey:
		return keyRestriction(field, key, operator, value)
	case field.Map != nil:
		return mapRestriction(field, operator, value)
	case field.Time != nil:
		return timeRestriction(field, operator, value)
	case field.Int != nil:
		return numberRestriction(field, operator, value)
	default:
		return nameRestriction(field.Name, operator, value)
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
