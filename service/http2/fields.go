package http2

import (
	"net/http"
	"slices"
)

// fields are the fields of a header as of a time. Values are shared with the header: handlers replace or append them, as http.Header does.
type fields []field

type field struct {
	name   string
	values []string
}

func fieldsOf(header http.Header) fields {
	if len(header) == 0 {
		return nil
	}
	f := make(fields, 0, len(header))
	for name, values := range header {
		f = append(f, field{name, values[:len(values):len(values)]})
	}
	return f
}

// get returns the values of a field.
func (f fields) get(name string) []string {
	if i := f.index(name); i >= 0 {
		return f[i].values
	}
	return nil
}

// first returns the first value of a field, or "".
func (f fields) first(name string) string {
	if values := f.get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// has reports whether there is a field of the name, also without values.
func (f fields) has(name string) bool { return f.index(name) >= 0 }

func (f fields) index(name string) int {
	return slices.IndexFunc(f, func(one field) bool { return one.name == name })
}

// without returns the fields without those of a name.
func (f fields) without(name string) fields {
	return slices.DeleteFunc(f, func(one field) bool { return one.name == name })
}
