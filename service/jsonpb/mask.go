package jsonpb

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// checkMasks returns an error if a field mask in the message names a map key that had an upper-case letter in JSON:
// the JSON form of a mask converts metadata.fooBar to metadata.foo_bar, which is another key.
func checkMasks(message protoreflect.Message, path string) error {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Message() == nil || field.IsMap() || !message.Has(field) {
			continue
		}
		name := strings.TrimPrefix(path+"."+string(field.Name()), ".")
		if !field.IsList() {
			if err := checkMask(message.Get(field).Message(), name); err != nil {
				return err
			}
			continue
		}
		list := message.Get(field).List()
		for j := range list.Len() {
			if err := checkMask(list.Get(j).Message(), name+"["+strconv.Itoa(j)+"]"); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkMask(message protoreflect.Message, path string) error {
	mask, ok := message.Interface().(*fieldmaskpb.FieldMask)
	if !ok {
		return checkMasks(message, path)
	}
	for _, p := range mask.GetPaths() {
		if field, key, _ := strings.Cut(p, "."); strings.Contains(key, "_") {
			return &Error{Field: path, Message: "must not name a key of " + field + " with an upper-case letter: the JSON form of a mask changes it; name " + field + " instead"}
		}
	}
	return nil
}
