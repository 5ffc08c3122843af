package service

import (
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

const (
	fieldUpdateMask = "update_mask"
	// wholeMask as the only path selects all writable fields.
	wholeMask = "*"
)

// maskAllows is the end of the message of a mask violation.
var maskAllows = "a mask may name " + strings.Join(user.WritableFields().Names(), ", ") + " and metadata.<key>"

type maskReader struct {
	patch      user.Patch
	violations []user.Violation
}

// maskedPatch sets exactly the fields in the mask. A field that is empty in values is cleared, if it
// may be empty. Duplicate paths are ignored.
func maskedPatch(values user.User, paths []string) (user.Patch, []user.Violation) {
	r := maskReader{patch: user.Patch{Values: values}}
	if len(paths) == 1 && paths[0] == wholeMask {
		paths = user.WritableFields().Names()
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		r.read(path)
	}
	r.rejectAmbiguousKeys()
	if len(r.patch.Entries) > 0 && r.patch.Set.Has(user.FieldByName("metadata")) {
		r.reject(fieldUpdateMask, "must not name both metadata and single metadata entries")
	}
	return r.patch, r.violations
}

func (r *maskReader) read(path string) {
	switch f := user.FieldByName(path); {
	case strings.HasPrefix(path, user.MetadataPath):
		r.readEntry(path)
	case path == wholeMask:
		r.reject(fieldUpdateMask, `must have "*" as its only path; `+maskAllows)
	case f == nil:
		r.reject(fieldUpdateMask, "unknown field "+quoted(path)+"; "+maskAllows)
	case !f.Writable:
		r.reject(fieldUpdateMask, "must not name output-only field "+path+"; "+maskAllows)
	case f.Required && f.Empty(&r.patch.Values):
		r.reject("user."+path, "must not be empty if it is in update_mask: it cannot be cleared")
	default:
		r.patch.Set = r.patch.Set.With(f)
	}
}

func (r *maskReader) readEntry(path string) {
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
func (r *maskReader) rejectAmbiguousKeys() {
	for key := range r.patch.Values.Metadata {
		read := keyInJSONMask(key)
		value, named := r.patch.Entries[read]
		if read != key && named && value == nil {
			r.reject(fieldUpdateMask, "names the entry "+quoted(read)+", but user has "+quoted(key)+
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

func (r *maskReader) reject(field, message string) {
	r.violations = append(r.violations, user.Violation{Field: field, Message: message})
}
