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
func nulViolations(m protoreflect.Message) []user.Violation {
	var search nulSearch
	m.Range(search.field)
	return search.violations
}

// nulSearch searches the fields of a message.
type nulSearch struct {
	path       string // of the message, with a dot at its end; empty for the root
	violations []user.Violation
}

func (s *nulSearch) field(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	if kind := field.Kind(); kind != protoreflect.StringKind && kind != protoreflect.MessageKind {
		return true
	}
	at := s.path + string(field.Name())
	switch {
	case field.IsMap():
		v.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
			at := at + "[" + strconv.Quote(key.String()) + "]"
			s.text(at, key.String())
			s.value(field.MapValue(), at, v)
			return true
		})
	case field.IsList() && !hasItems(field):
		for i := range v.List().Len() {
			s.value(field, at+"["+strconv.Itoa(i)+"]", v.List().Get(i))
		}
	case !field.IsList():
		s.value(field, at, v)
	}
	return true
}

func (s *nulSearch) text(at, text string) {
	if strings.IndexByte(text, 0) >= 0 {
		s.violations = append(s.violations, user.Violation{
			Field: at, Message: "must not contain NUL (U+0000)", Rule: "string.no_nul",
		})
	}
}

func (s *nulSearch) value(field protoreflect.FieldDescriptor, at string, v protoreflect.Value) {
	switch field.Kind() {
	case protoreflect.StringKind:
		s.text(at, v.String())
	case protoreflect.MessageKind:
		inner := nulSearch{path: at + "."}
		v.Message().Range(inner.field)
		s.violations = append(s.violations, inner.violations...)
	default:
	}
}

// hasItems reports whether the elements of a list are validated separately.
func hasItems(field protoreflect.FieldDescriptor) bool {
	if field.Message() == nil {
		return false
	}
	rules, _ := proto.GetExtension(field.Options(), buf.E_Field).(*buf.FieldRules)
	return rules.GetRepeated().GetItems().GetIgnore() == buf.Ignore_IGNORE_ALWAYS
}
