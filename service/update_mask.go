package service

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

const (
	fieldUpdateMask = "update_mask"
	fieldMetadata   = "metadata"
	// wholeMask as the only path selects all writable fields.
	wholeMask = "*"
	// maskAllows is the end of the message of a mask violation.
	maskAllows = "a mask may name username, email, status, tags, metadata and metadata.<key>"
)

// writableFields are the fields selected by wholeMask.
var writableFields = []string{fieldUsername, fieldEmail, fieldStatus, fieldTags, fieldMetadata}

type maskReader struct {
	from       *userv1.User
	patch      user.Patch
	violations []user.Violation
}

// maskedPatch sets exactly the fields in the mask. A field that is empty in u is cleared, if it
// may be empty. Duplicate paths are ignored.
func maskedPatch(u *userv1.User, paths []string) (user.Patch, []user.Violation) {
	r := maskReader{from: u}
	if len(paths) == 1 && paths[0] == wholeMask {
		paths = writableFields
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		r.read(path)
	}
	r.rejectAmbiguousKeys()
	if r.patch.Metadata != nil && len(r.patch.Entries) > 0 {
		r.reject(fieldUpdateMask, "must not name both metadata and single metadata entries")
	}
	return r.patch, r.violations
}

func (r *maskReader) read(path string) {
	switch path {
	case fieldUsername:
		r.patch.Username = r.text(path, r.from.GetUsername())
	case fieldEmail:
		r.patch.Email = r.text(path, r.from.GetEmail())
	case fieldStatus:
		r.patch.Status = new(user.Status(r.from.GetStatus()))
	case fieldTags:
		r.patch.Tags = new(r.from.GetTags())
	case fieldMetadata:
		r.patch.Metadata = new(r.from.GetMetadata())
	default:
		if strings.HasPrefix(path, user.MetadataPath) {
			r.readEntry(path)
			return
		}
		r.rejectUnknown(path)
	}
}

// text returns the value of a field that cannot be empty.
func (r *maskReader) text(field, value string) *string {
	if value == "" {
		r.reject("user."+field, "must not be empty if it is in update_mask: it cannot be cleared")
		return nil
	}
	return &value
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
	if value, ok := r.from.GetMetadata()[key]; ok {
		r.patch.Entries[key] = &value
	}
}

// rejectAmbiguousKeys rejects keys altered by the JSON form of a field mask, which converts
// metadata.fooBar to metadata.foo_bar. The entry would be ignored silently.
func (r *maskReader) rejectAmbiguousKeys() {
	for key := range r.from.GetMetadata() {
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

func (r *maskReader) rejectUnknown(path string) {
	switch {
	case path == wholeMask:
		r.reject(fieldUpdateMask, `must have "*" as its only path; `+maskAllows)
	case r.from.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(path)) != nil:
		r.reject(fieldUpdateMask, "must not name output-only field "+path+"; "+maskAllows)
	default:
		r.reject(fieldUpdateMask, "unknown field "+quoted(path)+"; "+maskAllows)
	}
}

func (r *maskReader) reject(field, message string) {
	r.violations = append(r.violations, user.Violation{Field: field, Message: message})
}
