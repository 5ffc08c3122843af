package rest

import (
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// marshalJSON encodes a message as REST shows it: a scalar that has its zero value is
// left out, a list or a map is not, so that a client need not ask whether it is there.
// fields is the field filter of the request, if it has one.
//
// Connect leaves empty lists out, as the JSON form of protobuf does: its clients know
// the message and its response is what the canonical form says.
func marshalJSON(dst []byte, message proto.Message, fields ...string) ([]byte, error) {
	shown := withLists{message.ProtoReflect(), fields}
	// Required fields, which proto3 does not have, need not be looked for.
	return protojson.MarshalOptions{AllowPartial: true}.MarshalAppend(dst, shown.Interface())
}

// withLists is a message that shows its repeated fields even when they are empty.
type withLists struct {
	protoreflect.Message

	fields []string
}

// Interface returns the message as what protojson encodes.
func (m withLists) Interface() protoreflect.ProtoMessage { return shownMessage{m} }

type shownMessage struct{ withLists }

// ProtoReflect returns the message.
func (m shownMessage) ProtoReflect() protoreflect.Message { return m.withLists }

// Range visits the populated fields and the empty lists and maps.
func (m withLists) Range(visit func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		value := m.Get(field)
		switch {
		case m.Has(field):
			value = m.shown(field, value)
		case !field.IsList() && !field.IsMap() || !m.whole(field):
			continue
		}
		if !visit(field, value) {
			return
		}
	}
}

// whole reports whether an empty field of the message is empty in truth. Of a user it
// may have been left out: by the field filter, or since a response has an excerpt of
// the user alone, which has no username.
func (m withLists) whole(field protoreflect.FieldDescriptor) bool {
	u, ok := m.Message.Interface().(*userv1.User)
	if !ok {
		return true
	}
	if len(m.fields) > 0 {
		return slices.ContainsFunc(m.fields, func(name string) bool { return name == string(field.Name()) || name == field.JSONName() })
	}
	return u.GetUsername() != ""
}

// shown wraps the messages within a value.
func (m withLists) shown(field protoreflect.FieldDescriptor, value protoreflect.Value) protoreflect.Value {
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

// Get returns an element, wrapped.
func (l listWithLists) Get(i int) protoreflect.Value {
	return protoreflect.ValueOfMessage(withLists{l.List.Get(i).Message(), l.fields})
}
