package rest

import (
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/codec"
)

// marshalJSON encodes a message as REST JSON: zero scalars are omitted, empty lists and maps are
// present. fields is the field filter of the request. Connect responses use the canonical form,
// which omits empty lists.
func marshalJSON(dst []byte, message proto.Message, fields ...string) ([]byte, error) {
	wrapped := withLists{message.ProtoReflect(), fields}
	// AllowPartial skips the check for required fields, which proto3 does not have.
	return protojson.MarshalOptions{AllowPartial: true}.MarshalAppend(dst, wrapped.Interface())
}

// marshalRow encodes a message of a stream.
func marshalRow(message proto.Message) ([]byte, error) {
	encode := func(m proto.Message) ([]byte, error) { return marshalJSON(nil, m) }
	if shared, ok := message.(codec.Shared); ok {
		return shared.Encoding("rest", encode)
	}
	return encode(message)
}

// withLists is a message whose empty repeated fields are present.
type withLists struct {
	protoreflect.Message

	fields []string
}

// Interface implements protoreflect.Message.
func (m withLists) Interface() protoreflect.ProtoMessage { return withListsMessage{m} }

type withListsMessage struct{ withLists }

// ProtoReflect implements proto.Message.
func (m withListsMessage) ProtoReflect() protoreflect.Message { return m.withLists }

// Range visits the populated fields and the empty lists and maps.
func (m withLists) Range(visit func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		value := m.Get(field)
		switch {
		case m.Has(field):
			value = m.wrap(field, value)
		case !field.IsList() && !field.IsMap() || !m.complete(field):
			continue
		}
		if !visit(field, value) {
			return
		}
	}
}

// complete reports whether an empty field is known to be empty. A user in a response may be
// partial: by the field filter, or as an excerpt without username.
func (m withLists) complete(field protoreflect.FieldDescriptor) bool {
	u, ok := m.Message.Interface().(*userv1.User)
	if !ok {
		return true
	}
	if len(m.fields) > 0 {
		return slices.ContainsFunc(m.fields, func(name string) bool { return name == string(field.Name()) || name == field.JSONName() })
	}
	return u.GetUsername() != ""
}

// wrap wraps the messages in a value.
func (m withLists) wrap(field protoreflect.FieldDescriptor, value protoreflect.Value) protoreflect.Value {
	switch {
	case field.Message() == nil, field.IsMap():
		return value
	case field.IsList():
		return protoreflect.ValueOfList(listWithLists{value.List(), m.fields})
	default:
		return protoreflect.ValueOfMessage(withLists{value.Message(), m.fields})
	}
}

type listWithLists struct {
	protoreflect.List

	fields []string
}

// Get returns a wrapped element.
func (l listWithLists) Get(i int) protoreflect.Value {
	return protoreflect.ValueOfMessage(withLists{l.List.Get(i).Message(), l.fields})
}
