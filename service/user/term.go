package user

import (
	"encoding/binary"
	"iter"
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
	return Term(appendTerm(nil, f, kind, key, value))
}

func appendTerm(b []byte, f *Field, kind byte, key, value string) []byte {
	b = binary.AppendUvarint(b, uint64(f.Number))
	b = binary.AppendUvarint(append(b, kind), uint64(len(key)))
	return append(append(b, key...), value...)
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

// Terms returns the terms of the user by the fields of a set, in no order. The bytes are valid until the next one.
func (u *User) Terms(set FieldSet) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		buffer := make([]byte, 0, 128)
		visit := func(f *Field, kind byte, key, value string) bool {
			buffer = appendTerm(buffer[:0], f, kind, key, value)
			return yield(buffer)
		}
		for i := range fields {
			if f := &fields[i]; set.Has(f) && termFields.Has(f) && !f.visitTerms(u, visit) {
				return
			}
		}
	}
}

// visitTerms calls visit with the parts of each term by the field until it returns false.
func (f *Field) visitTerms(u *User, visit func(f *Field, kind byte, key, value string) bool) bool {
	if f.Status != nil {
		return visit(f, termValue, "", f.Status(u).String())
	}
	if f.Empty(u) {
		return true
	}
	if !visit(f, termPresent, "", "") {
		return false
	}
	if f.List != nil {
		for _, element := range *f.List(u) {
			if !visit(f, termValue, "", element) {
				return false
			}
		}
		return true
	}
	for key, value := range *f.Map(u) {
		if !visit(f, termKey, key, "") || !visit(f, termPair, key, value) {
			return false
		}
	}
	return true
}
