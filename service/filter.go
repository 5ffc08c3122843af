package service

import (
	"errors"
	"fmt"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/yourorg/userservice/service/user"
)

// The fields that a filter may name.
const (
	fieldStatus    = "status"
	fieldTags      = "tags"
	fieldUsername  = "username"
	fieldEmail     = "email"
	fieldCreatedAt = "created_at"
	fieldUpdatedAt = "updated_at"
)

// predicate says whether a user is wanted. It is given the normal forms, too.
type predicate func(*user.User, user.Keys) bool

// filter is what a filter text means.
type filter struct {
	match predicate // nil: everybody is wanted
	bound bound
}

// bound is what a filter says of the normal form of every user that it wants, so
// that an index finds them. The zero bound says nothing.
type bound struct {
	order user.Order // ByUsername or ByEmail; ByID: there is no bound
	key   string     // normal form, or the beginning of it
	exact bool       // key is all of the normal form, not its beginning
}

// narrow makes use of the bound where the query's order allows it, and reports
// whether the answer is one user at most: of those whose key begins with a text, the
// one that equals it comes first.
func (b bound) narrow(q *user.ListQuery) (atMostOne bool) {
	switch {
	case b.exact:
		q.Order, q.Desc, q.Prefix, q.MaxScanned = b.order, false, b.key, 1
		return true
	case b.order != user.ByID && b.order == q.Order:
		q.Prefix = b.key
	}
	return false
}

// parseFilter reads a filter in the language of AIP-160. Whatever it may not say is
// an INVALID_FIELD error that says what it may.
//
// The grammar is the library's. The meaning is given here, and not by the
// library's type checker, because that one reports types where a caller needs to
// be told what to write, and knows nothing of normal forms.
func parseFilter(text string) (filter, error) {
	if strings.TrimSpace(text) == "" {
		return filter{}, nil
	}
	var parser filtering.Parser
	parser.Init(text)
	parsed, err := parser.Parse()
	if err != nil {
		return filter{}, newFilterSyntaxError(err)
	}
	var f filter
	match, invalid := f.meaning(parsed.GetExpr(), true)
	if invalid != nil {
		return filter{}, invalid
	}
	f.match = match
	return f, nil
}

// meaning gives what an expression means. must says that the filter is true only
// where this expression is, so that it may bound the search.
func (f *filter) meaning(e *expr.Expr, must bool) (predicate, *user.Error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, newFilterErrorf("must be made of restrictions such as status = ACTIVE; %s stands alone", describe(e))
	}
	args := call.GetArgs()
	switch name := call.GetFunction(); name {
	case filtering.FunctionAnd:
		return f.both(args, must, func(a, b predicate) predicate {
			return func(u *user.User, k user.Keys) bool { return a(u, k) && b(u, k) }
		})
	case filtering.FunctionOr:
		return f.both(args, false, func(a, b predicate) predicate {
			return func(u *user.User, k user.Keys) bool { return a(u, k) || b(u, k) }
		})
	case filtering.FunctionNot:
		inner, err := f.meaning(args[0], false)
		if err != nil {
			return nil, err
		}
		return func(u *user.User, k user.Keys) bool { return !inner(u, k) }, nil
	case filtering.FunctionFuzzyAnd:
		return nil, newFilterErrorf("must join restrictions by AND or OR")
	case filtering.FunctionEquals, filtering.FunctionNotEquals, filtering.FunctionHas,
		filtering.FunctionLessThan, filtering.FunctionLessEquals,
		filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals:
		return f.restriction(args[0], name, args[1], must)
	default:
		return nil, newFilterErrorf("must not call %s; there is only timestamp(\"…\"), on the right of a comparison", quoted(name))
	}
}

func (f *filter) both(
	args []*expr.Expr, must bool, join func(a, b predicate) predicate,
) (predicate, *user.Error) {
	a, err := f.meaning(args[0], must)
	if err != nil {
		return nil, err
	}
	b, err := f.meaning(args[1], must)
	if err != nil {
		return nil, err
	}
	return join(a, b), nil
}

// restriction gives what "field operator value" means.
func (f *filter) restriction(left *expr.Expr, operator string, value *expr.Expr, must bool) (predicate, *user.Error) {
	field, _ := textOf(left)
	switch field = protoName(field); field {
	case fieldStatus:
		return statusRestriction(operator, value)
	case fieldTags:
		return tagsRestriction(operator, value)
	case fieldUsername, fieldEmail:
		return f.nameRestriction(field, operator, value, must)
	case fieldCreatedAt:
		return timeRestriction(field, operator, value, createdAt)
	case fieldUpdatedAt:
		return timeRestriction(field, operator, value, updatedAt)
	default:
		return nil, newFilterErrorf("must compare status, tags, username, email, created_at or updated_at, not %s", describe(left))
	}
}

func newFilterErrorf(format string, args ...any) *user.Error {
	return user.NewFieldErrorf("filter", format, args...)
}

// newFilterSyntaxError says where the parser stopped and why. Its errors are a chain from the
// whole expression down to the token, which tells the most.
func newFilterSyntaxError(err error) *user.Error {
	type placed interface {
		error
		Position() filtering.Position
		Message() string
	}
	var deepest placed
	for errors.As(err, &deepest) {
		err = errors.Unwrap(deepest)
	}
	if deepest == nil {
		return newFilterErrorf("must be a filter in the language of AIP-160")
	}
	what := deepest.Message()
	if err != nil { // the token could not be read: most often the text ends
		what = "unexpected end"
	}
	return newFilterErrorf("must be a filter in the language of AIP-160: at character %d: %s",
		deepest.Position().Column, what)
}

// textOf gives the text of a name or a string: username, "ann", or a.b.c.
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
		return quoted(text)
	}
	if call := e.GetCallExpr(); call != nil {
		return quoted(call.GetFunction())
	}
	return "a number"
}

// quoted quotes what a caller wrote, and only the beginning of it where it is long.
func quoted(text string) string {
	const most = 40
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}
