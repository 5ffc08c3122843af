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
	// wholeMask, alone in a mask, names every writable field.
	wholeMask = "*"
	// maskAllows ends what a violation of the mask says.
	maskAllows = "a mask may name username, email, status, tags, metadata and metadata.<key>"
)

// writableFields are what "*" stands for.
var writableFields = []string{fieldUsername, fieldEmail, fieldStatus, fieldTags, fieldMetadata}

// maskReader gathers what a mask names.
type maskReader struct {
	from       *userv1.User
	patch      user.Patch
	violations []user.Violation
}

// maskedPatch names exactly the fields of the mask: one that is empty in u is
// cleared, where it may be empty. A path that is named twice counts once.
func maskedPatch(u *userv1.User, paths []string) (user.Patch, []user.Violation) {
	r := maskReader{from: u}
	if len(paths) == 1 && paths[0] == wholeMask {
		paths = writableFields
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		r.read(path)
	}
	r.refuseMisread()
	if r.patch.Metadata != nil && len(r.patch.Entries) > 0 {
		r.refuse(fieldUpdateMask, "must name either metadata as a whole or single entries of it, not both")
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
		r.refuseUnknown(path)
	}
}

// text is the new value of a field that cannot be empty.
func (r *maskReader) text(field, value string) *string {
	if value == "" {
		r.refuse("user."+field, "must not be empty where the mask names it: it cannot be cleared")
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

// refuseMisread refuses keys that the JSON form of a field mask has changed: it turns
// metadata.fooBar into metadata.foo_bar, so that the entry in user would be lost
// without a word.
func (r *maskReader) refuseMisread() {
	for key := range r.from.GetMetadata() {
		read := maskedInJSON(key)
		value, named := r.patch.Entries[read]
		if read != key && named && value == nil {
			r.refuse(fieldUpdateMask, "names the entry "+quoted(read)+", where user has "+quoted(key)+
				": a mask in JSON cannot tell them apart; name metadata as a whole")
		}
	}
}

// maskedInJSON is what becomes of a path in the JSON form of a field mask.
func maskedInJSON(path string) string {
	var b strings.Builder
	for _, r := range path {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (r *maskReader) refuseUnknown(path string) {
	switch {
	case path == wholeMask:
		r.refuse(fieldUpdateMask, `must have "*" as its only path; `+maskAllows)
	case r.from.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(path)) != nil:
		r.refuse(fieldUpdateMask, "must not name "+path+", which the server alone sets; "+maskAllows)
	default:
		r.refuse(fieldUpdateMask, "must not name "+quoted(path)+", which is no field to change; "+maskAllows)
	}
}

func (r *maskReader) refuse(field, message string) {
	r.violations = append(r.violations, user.Violation{Field: field, Message: message})
}
