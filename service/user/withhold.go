package user

import (
	"maps"
	"strings"
)

// RedactedMark replaces personal data in the log rows of a purged user.
const RedactedMark = "[redacted]"

// WithheldMark replaces personal data in log rows for a caller that is not authorized to
// read users.
const WithheldMark = "[withheld]"

// RedactDetails returns the details of a log row after the user is purged. It keeps values of
// the status and of the times of deletion and purge, and replaces the values of other user
// fields by a mark. It drops all other keys.
func RedactDetails(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for key, value := range in {
		switch key {
		case "old.status", "new.status", "old.deleted_at", "new.deleted_at", "old.purge_at", "new.purge_at":
			out[key] = value
		case "old.username", "new.username", "old.email", "new.email", "old.tags", "new.tags":
			out[key] = RedactedMark
		}
	}
	return out
}

// WithholdDetails returns a copy of the details of a log row without personal data: the values
// of username, email, tags and metadata, and the keys of metadata.
func WithholdDetails(in map[string]string) map[string]string {
	out := maps.Clone(in)
	for key := range in {
		if name, personal := personalDetail(key); personal {
			delete(out, key)
			out[name] = WithheldMark
		}
	}
	return out
}

// personalDetail returns the key of a withheld detail and whether the detail is personal.
func personalDetail(key string) (name string, personal bool) {
	field, changed := strings.CutPrefix(key, "old.")
	if !changed {
		field, changed = strings.CutPrefix(key, "new.")
	}
	if !changed {
		return key, false
	}
	if strings.HasPrefix(field, MetadataPath) {
		return key[:len(key)-len(field)] + "metadata", true
	}
	return key, field == "username" || field == "email" || field == "tags" || field == "metadata"
}
