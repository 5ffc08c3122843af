package user

import (
	"slices"
	"strings"
)

// MinContains is the least number of bytes of Condition.Contains.
const MinContains = 3

// Condition is a condition on a user that a store can answer by an index. Exactly one field is set.
type Condition struct {
	Term     Term        // the user has the term
	Contains string      // a normal form of its username or e-mail address contains the text, of at least MinContains bytes
	All      []Condition // the user meets each of the conditions, at least one
	Any      []Condition // the user meets one of the conditions, at least one
}

// Meets reports whether a user meets the condition.
func (c *Condition) Meets(u *User, keys Keys) bool {
	switch {
	case c.Term != "":
		return u.has(c.Term)
	case c.Contains != "":
		return strings.Contains(keys.Username, c.Contains) || strings.Contains(keys.Email, c.Contains)
	case c.Any != nil:
		return slices.ContainsFunc(c.Any, func(part Condition) bool { return part.Meets(u, keys) })
	default:
		return !slices.ContainsFunc(c.All, func(part Condition) bool { return !part.Meets(u, keys) })
	}
}

func (u *User) has(term Term) bool {
	for t := range u.Terms(termFields) {
		if string(t) == string(term) {
			return true
		}
	}
	return false
}
