// Package fieldmask reads update masks and field filters by the table of fields of the domain.
package fieldmask

import (
	"fmt"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

const (
	updateMask = "update_mask"
	// wholeMask as the only path selects all writable fields.
	wholeMask = "*"
)

// maskAllows is the end of the message of a mask violation.
var maskAllows = "a mask may name " + strings.Join(user.WritableFields().Names(), ", ") + " and metadata.<key>"

// Select returns the fields with the given names, or JSON names. No names select all fields. Each
// unknown name is a violation on fields.
func Select(names []string) (set user.FieldSet, err error) {
	if len(names) == 0 {
		return user.APIFields(), nil
	}
	var violations []user.Violation
	for i, name := range names {
		f := user.FindField(name)
		if f == nil {
			violations = append(violations, user.Violation{
				Field:   fmt.Sprintf("fields[%d]", i),
				Message: "must be one of " + strings.Join(user.APIFields().Names(), ", "),
			})
			continue
		}
		set = set.With(f)
	}
	if violations != nil {
		return 0, user.NewInvalidError(violations...)
	}
	return set, nil
}

type reader struct {
	patch      user.Patch
	violations []user.Violation
}

// Update returns a patch that sets exactly the fields in the mask. A field that is empty in values is cleared, if it
// may be empty. Duplicate paths are ignored.
func Update(values user.User, paths []string) (user.Patch, []user.Violation) {
	r := reader{patch: user.Patch{Values: values}}
	if len(paths) == 1 && paths[0] == wholeMask {
		paths = user.WritableFields().Names()
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		r.read(path)
	}
	r.rejectAmbiguousKeys()
	if len(r.patch.Entries) > 0 && r.patch.Set.Has(user.FieldByName("metadata")) {
		r.reject(updateMask, "must not name both metadata and single metadata entries")
	}
	return r.patch, r.violations
}

func (r *reader) read(path string) {
	switch f := user.FieldByName(path); {
	case strings.HasPrefix(path, user.MetadataPath):
		r.readEntry(path)
	case path == wholeMask:
		r.reject(updateMask, `must have "*" as its only path; `+maskAllows)
	case f == nil:
		r.reject(updateMask, "unknown field "+user.Quote(path)+"; "+maskAllows)
	case !f.Writable:
		r.reject(updateMask, "must not name output-only field "+path+"; "+maskAllows)
	case f.Required && f.Empty(&r.patch.Values):
		r.reject("user."+path, "must not be empty if it is in update_mask: it cannot be cleared")
	default:
		r.patch.Set = r.patch.Set.With(f)
	}
}

func (r *reader) readEntry(path string) {
	key, err := user.CheckEntryKey(path)
	if err != nil {
		r.violations = append(r.violations, err.Violations...)
		return
	}
	if r.patch.Entries == nil {
		r.patch.Entries = make(map[string]*string)
	}
	r.patch.Entries[key] = nil
	if value, ok := r.patch.Values.Metadata[key]; ok {
		r.patch.Entries[key] = &value
	}
}

// rejectAmbiguousKeys rejects keys altered by the JSON form of a field mask, which converts
// metadata.fooBar to metadata.foo_bar. The entry would be ignored silently.
func (r *reader) rejectAmbiguousKeys() {
	for key := range r.patch.Values.Metadata {
		read := keyInJSONMask(key)
		value, named := r.patch.Entries[read]
		if read != key && named && value == nil {
			r.reject(updateMask, "names the entry "+user.Quote(read)+", but user has "+user.Quote(key)+
				": a JSON mask cannot distinguish them; name metadata instead")
		}
	}
}

// keyInJSONMask converts a key as the JSON form of a field mask does.
func keyInJSONMask(key string) string {
	var b strings.Builder
	for _, r := range key {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (r *reader) reject(field, message string) {
	r.violations = append(r.violations, user.Violation{Field: field, Message: message})
}
