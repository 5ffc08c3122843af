package user

import (
	"maps"
	"strings"
)

// RedactedMark is the value of a personal field in a log row whose user is purged.
const RedactedMark = "[redacted]"

// WithheldMark is the value of a personal field in a log row whose reader may not read
// users.
const WithheldMark = "[withheld]"

// RedactDetails returns what is left of a log row's details when its user is purged:
// which fields had changed, and the status, which says nothing of the person.
// Everything else is replaced by a mark.
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

// WithholdDetails returns a log row's details without the values of personal fields: username,
// email, tags and metadata, whose keys are left out too. It does not change in.
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

// personalDetail returns the key under which a detail is withheld.
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
