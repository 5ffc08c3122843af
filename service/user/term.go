package user

import (
	"encoding/binary"
	"slices"
)

// Term identifies a property that a user has or has not, such as a tag, so that a store can find the users
// with the property in an index. Terms of different properties differ.
type Term string

// Kinds of terms.
const (
	termPresent = 'p' // a list or map is not empty
	termValue   = 'v' // a status, or an element of a list
	termKey     = 'k' // a key of a map
	termPair    = 'm' // a key of a map, and its value
)

func newTerm(f *Field, kind byte, key, value string) Term {
	b := binary.AppendUvarint(nil, uint64(f.Number))
	b = binary.AppendUvarint(append(b, kind), uint64(len(key)))
	return Term(append(append(b, key...), value...))
}

// StatusTerm returns the term of users with a status.
func (f *Field) StatusTerm(s Status) Term { return newTerm(f, termValue, "", s.String()) }

// PresentTerm returns the term of users whose list or map f is not empty.
func (f *Field) PresentTerm() Term { return newTerm(f, termPresent, "", "") }

// ElementTerm returns the term of users with an element in the list f.
func (f *Field) ElementTerm(element string) Term { return newTerm(f, termValue, "", element) }

// KeyTerm returns the term of users with a key in the map f.
func (f *Field) KeyTerm(key string) Term { return newTerm(f, termKey, key, "") }

// PairTerm returns the term of users with a key and its value in the map f.
func (f *Field) PairTerm(key, value string) Term { return newTerm(f, termPair, key, value) }

// termFields are the fields with terms.
var termFields = fieldsWhere(func(f *Field) bool {
	return f.Filterable && (f.Status != nil || f.List != nil || f.Map != nil)
})

// TermFields returns the fields on which Terms depends.
func TermFields() FieldSet { return termFields }

// Terms returns the terms of the user, sorted.
func (u *User) Terms() (terms []Term) {
	for i := range fields {
		f := &fields[i]
		switch {
		case !termFields.Has(f):
		case f.Status != nil:
			terms = append(terms, f.StatusTerm(*f.Status(u)))
		case f.Empty(u):
		case f.List != nil:
			terms = append(terms, f.PresentTerm())
			for _, element := range *f.List(u) {
				terms = append(terms, f.ElementTerm(element))
			}
		default:
			terms = append(terms, f.PresentTerm())
			for key, value := range *f.Map(u) {
				terms = append(terms, f.KeyTerm(key), f.PairTerm(key, value))
			}
		}
	}
	slices.Sort(terms)
	return slices.Compact(terms)
}
