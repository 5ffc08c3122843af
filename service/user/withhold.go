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

// RedactDetails returns the details of a log row after the user is purged. It keeps the values of
// public fields, replaces other values by a mark, and drops map entries and all other keys.
func RedactDetails(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for key, value := range in {
		switch f, _ := changedField(key); {
		case f == nil, f.Map != nil:
		case f.Public:
			out[key] = value
		case f.Writable:
			out[key] = RedactedMark
		}
	}
	return out
}

// WithholdDetails returns a copy of the details of a log row without personal data: the values
// of writable fields that are not public, and the keys of map entries.
func WithholdDetails(in map[string]string) map[string]string {
	out := maps.Clone(in)
	for key := range in {
		if f, name := changedField(key); f != nil && f.Writable && !f.Public {
			delete(out, key)
			out[name] = WithheldMark
		}
	}
	return out
}

// changedField returns the field that a detail is about, nil if there is none, and the key without
// that of a map entry.
func changedField(key string) (f *Field, name string) {
	change, path, _ := strings.Cut(key, ".")
	if change != "old" && change != "new" {
		return nil, key
	}
	path, _, isEntry := strings.Cut(path, ".")
	if f = FieldByName(path); f == nil || isEntry && f.Map == nil {
		return nil, key
	}
	return f, change + "." + path
}
