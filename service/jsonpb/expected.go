package jsonpb

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Expected describes the expected value of a field, such as "must be an array of strings".
func Expected(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsMap():
		return "must be an object whose values are " + plural(field.MapValue())
	case field.IsList():
		return "must be an array of " + plural(field)
	}
	return ExpectedElement(field)
}

// ExpectedElement describes the expected element of a repeated field, and the expected value
// of any other field.
func ExpectedElement(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.StringKind:
		return "must be a string"
	case protoreflect.BoolKind:
		return "must be true or false"
	case protoreflect.Int32Kind:
		return "must be a 32-bit integer"
	case protoreflect.Int64Kind:
		return "must be a 64-bit integer"
	case protoreflect.EnumKind:
		return "must be one of " + strings.Join(enumNames(field.Enum()), ", ")
	case protoreflect.MessageKind:
		return expectedMessage(field.Message())
	default:
		return "must be a " + field.Kind().String()
	}
}

func expectedMessage(message protoreflect.MessageDescriptor) string {
	switch message.FullName() {
	case "google.protobuf.Timestamp":
		return "must be an RFC 3339 time in the years 1 to 9999, such as 2026-01-31T12:34:56Z"
	case "google.protobuf.FieldMask":
		return "must be field names in lowerCamelCase, separated by commas"
	default:
		return "must be an object"
	}
}

func plural(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.StringKind:
		return "strings"
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return "integers"
	case protoreflect.MessageKind:
		return "objects"
	default:
		return field.Kind().String() + " values"
	}
}

// EnumValue returns the enum value with a name, with or without the common prefix of the enum.
// It returns nil for an unknown name.
func EnumValue(enum protoreflect.EnumDescriptor, name string) protoreflect.EnumValueDescriptor {
	if value := enum.Values().ByName(protoreflect.Name(name)); value != nil {
		return value
	}
	return enum.Values().ByName(protoreflect.Name(enumPrefix(enum) + name))
}

// enumPrefix returns the common prefix of the names of enum values: USER_STATUS_ for UserStatus.
func enumPrefix(enum protoreflect.EnumDescriptor) string {
	var b strings.Builder
	for i, c := range string(enum.Name()) {
		if i > 0 && 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String()) + "_"
}

// enumNames returns the short names of the enum values except the zero value.
func enumNames(enum protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range enum.Values().Len() {
		if value := enum.Values().Get(i); value.Number() != 0 {
			names = append(names, strings.TrimPrefix(string(value.Name()), enumPrefix(enum)))
		}
	}
	return names
}
