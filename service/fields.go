package service

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// fieldSet is a set of fields of User: bit n is the field with index n. Zero selects all fields.
type fieldSet uint64

// parseFields parses the names in a field filter. Each unknown name is a violation.
func parseFields(names []string) (fieldSet, error) {
	if len(names) == 0 {
		return 0, nil
	}
	var set fieldSet
	var violations []user.Violation
	known := (*userv1.User)(nil).ProtoReflect().Descriptor().Fields()
	for i, name := range names {
		fd := known.ByName(protoreflect.Name(protoName(name)))
		if fd == nil {
			violations = append(violations, user.Violation{
				Field:   fmt.Sprintf("fields[%d]", i),
				Message: "must be one of " + fieldNames(known),
			})
			continue
		}
		set |= 1 << fd.Index()
	}
	if violations != nil {
		return 0, user.NewInvalidError(violations...)
	}
	return set, nil
}

// protoName converts the JSON name of a field of User to its proto name: createdAt to
// created_at. It returns any other name unchanged.
func protoName(name string) string {
	if fd := (*userv1.User)(nil).ProtoReflect().Descriptor().Fields().ByJSONName(name); fd != nil {
		return string(fd.Name())
	}
	return name
}

// keepIn clears the fields of u outside the set.
func (s fieldSet) keepIn(u *userv1.User) {
	if s == 0 {
		return
	}
	m := u.ProtoReflect()
	known := m.Descriptor().Fields()
	for i := range known.Len() {
		if s&(1<<i) == 0 {
			m.Clear(known.Get(i))
		}
	}
}

func fieldNames(fields protoreflect.FieldDescriptors) string {
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = string(fields.Get(i).Name())
	}
	return strings.Join(names, ", ")
}
