package filter

import (
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/yourorg/userservice/service/user"
)

// searchField is the name of the restriction of username and e-mail address together.
const searchField = "search"

// searchRestriction compiles search = "text": a part of a username or an e-mail address.
func searchRestriction(operator string, value *expr.Expr) (condition, *user.Error) {
	text, ok := textOf(value)
	switch {
	case operator != filtering.FunctionEquals && operator != filtering.FunctionNotEquals:
		return condition{}, newErrorf(`must compare search with = or !=, not %s`, operator)
	case !ok:
		return condition{}, newErrorf(`must put the text to search for in quotes`)
	case text == anyText || isPattern(text):
		return condition{}, newErrorf(`must search for a text without * at its ends, such as search = "ann"`)
	}
	username, usernameErr := user.UsernamePart(text, false, false)
	email, emailErr := user.EmailPart(text, false, false)
	if usernameErr != nil && emailErr != nil {
		return condition{}, newErrorf("must search for a text that a username or an e-mail address may contain")
	}
	var parts user.Condition
	for _, part := range []struct {
		key string
		err *user.Error
	}{{username, usernameErr}, {email, emailErr}} {
		if part.err != nil || len(parts.Any) == 1 && parts.Any[0].Contains == part.key {
			continue
		}
		if err := checkLength(part.key); err != nil {
			return condition{}, err
		}
		parts.Any = append(parts.Any, user.Condition{Contains: part.key})
	}
	return equalOrNot(condition{parts.Meets, implied{where: []user.Condition{parts}}}, operator), nil
}

// checkLength returns an error if a part is too short for an index.
func checkLength(key string) *user.Error {
	if len(key) < user.MinContains {
		return newErrorf("must search for a part of at least %d bytes in its normal form, "+
			"such as 3 Latin, 2 Greek or 1 Chinese character; a shorter one is supported at the start: \"a*\"", user.MinContains)
	}
	return nil
}

func equalOrNot(is condition, operator string) condition {
	if operator == filtering.FunctionNotEquals {
		return not(is)
	}
	return is
}

// nameRestriction compares the normal form of a username or an e-mail address.
func nameRestriction(field, operator string, value *expr.Expr) (condition, *user.Error) {
	if operator != filtering.FunctionEquals && operator != filtering.FunctionNotEquals {
		return condition{}, newErrorf(`must compare %s with = or !=, not %s; the value may start or end with *`, field, operator)
	}
	text, ok := textOf(value)
	if !ok {
		return condition{}, newErrorf(`must put the value of %s in quotes`, field)
	}
	if part, isPart := strings.CutPrefix(text, anyText); isPart && part != "" {
		is, err := partRestriction(field, part)
		return equalOrNot(is, operator), err
	}
	b, err := nameBound(field, text)
	if err != nil {
		return condition{}, err
	}
	return equalOrNot(condition{match: b.matches(), implied: implied{name: bound{}.narrower(b)}}, operator), nil
}

// partRestriction compiles username = "*text" and username = "*text*".
func partRestriction(field, text string) (condition, *user.Error) {
	text, inner := strings.CutSuffix(text, anyText)
	same := strings.HasSuffix
	if inner {
		same = strings.Contains
	}
	keyOf, normal := func(k user.Keys) string { return k.Username }, user.UsernamePart
	if field == "email" {
		keyOf, normal = func(k user.Keys) string { return k.Email }, user.EmailPart
	}
	key, err := normal(text, false, !inner)
	if err != nil {
		return condition{}, newValueError(field, err)
	}
	if err := checkLength(key); err != nil {
		return condition{}, err
	}
	return condition{
		match:   func(_ *user.User, k user.Keys) bool { return same(keyOf(k), key) },
		implied: implied{where: []user.Condition{{Contains: key}}},
	}, nil
}

func newValueError(field string, err *user.Error) *user.Error {
	return newErrorf("must compare %s with a valid value, which %s", field, err.Violations[0].Message)
}

func nameBound(field, text string) (bound, *user.Error) {
	b := bound{order: user.ByUsername}
	exactKey, partKey := user.UsernameKey, user.UsernamePart
	if field == "email" {
		b.order, exactKey, partKey = user.ByEmail, user.EmailKey, user.EmailPart
	}
	var err *user.Error
	if prefix, isPrefix := strings.CutSuffix(text, anyText); isPrefix {
		b.key, err = partKey(prefix, true, false)
	} else {
		b.exact = true
		b.key, err = exactKey(text)
	}
	if err != nil {
		return bound{}, newValueError(field, err)
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
