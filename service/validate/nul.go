package validate

import (
	"strconv"
	"strings"

	buf "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/user"
)

// nulViolations returns a violation for each string of a message that contains NUL, at every
// depth. This rule covers every field, including future ones, so it is not in the proto. Lists
// of separately validated items are skipped.
func nulViolations(m protoreflect.Message, path string) (violations []user.Violation) {
	text := func(at, text string) {
		if strings.IndexByte(text, 0) >= 0 {
			violations = append(violations, user.Violation{
				Field: at, Message: "must not contain NUL (U+0000)", Rule: "string.no_nul",
			})
		}
	}
	value := func(field protoreflect.FieldDescriptor, at string, v protoreflect.Value) {
		switch field.Kind() {
		case protoreflect.StringKind:
			text(at, v.String())
		case protoreflect.MessageKind:
			violations = append(violations, nulViolations(v.Message(), at+".")...)
		default:
		}
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if kind := field.Kind(); kind != protoreflect.StringKind && kind != protoreflect.MessageKind {
			return true
		}
		at := path + string(field.Name())
		switch {
		case field.IsMap():
			v.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				at := at + "[" + strconv.Quote(key.String()) + "]"
				text(at, key.String())
				value(field.MapValue(), at, v)
				return true
			})
		case field.IsList() && !hasItems(field):
			for i := range v.List().Len() {
				value(field, at+"["+strconv.Itoa(i)+"]", v.List().Get(i))
			}
		case !field.IsList():
			value(field, at, v)
		}
		return true
	})
	return violations
}

// hasItems reports whether the elements of a list are validated separately.
func hasItems(field protoreflect.FieldDescriptor) bool {
	if field.Message() == nil {
		return false
	}
	rules, _ := proto.GetExtension(field.Options(), buf.E_Field).(*buf.FieldRules)
	return rules.GetRepeated().GetItems().GetIgnore() == buf.Ignore_IGNORE_ALWAYS
}
