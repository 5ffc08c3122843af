package bounds

import (
	"fmt"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unruled is how many elements a list or a map may have for which there is no rule.
// There is nothing that would refuse a part of it, so the message is refused as a whole.
const unruled = 1000

// Bounds are those of the requests of one service. They are safe for use by many
// goroutines.
type Bounds struct {
	shapes map[protoreflect.FullName]*shape
}

// New returns the bounds of all requests of the services in the file, and of the
// messages within them.
func New(file protoreflect.FileDescriptor) (*Bounds, error) {
	b := &Bounds{shapes: make(map[protoreflect.FullName]*shape)}
	for i := range file.Services().Len() {
		methods := file.Services().Get(i).Methods()
		for j := range methods.Len() {
			if err := b.add(methods.Get(j).Input()); err != nil {
				return nil, fmt.Errorf("bounds of %s: %w", methods.Get(j).FullName(), err)
			}
		}
	}
	return b, nil
}

func (b *Bounds) add(message protoreflect.MessageDescriptor) error {
	if b.shapes[message.FullName()] != nil || hasOwnJSON(message) {
		return nil
	}
	s, err := newShape(message)
	if err != nil {
		return err
	}
	b.shapes[message.FullName()] = s
	for i := range message.Fields().Len() {
		if within := message.Fields().Get(i).Message(); within != nil && !within.IsMapEntry() {
			if err := b.add(within); err != nil {
				return err
			}
		}
	}
	return nil
}

// shape is what a message may hold that has to be counted.
type shape struct {
	byNumber map[protowire.Number]*field
	byName   map[string]*field // in JSON: of both spellings
	// counters is how many lists and maps there are, with those of the messages within
	// that there is one of: such a message may come in several parts, which count as one.
	counters int
}

// field is a field of a shape. All are known by name, since JSON with others is refused.
type field struct {
	path    string
	number  protowire.Number
	max     int  // elements; 0: it is neither a list nor a map
	ruled   bool // a rule refuses more elements
	counter int
	wire    protowire.Type // of the elements; numbers may come packed as well
	isMap   bool
	isMask  bool   // as JSON it is one text
	child   *shape // of the message, or of each element; nil: it is none
	element *field // of the list, or of the map's values
}

func newShape(message protoreflect.MessageDescriptor) (*shape, error) {
	var counters int
	s, err := build(message, "", &counters, nil)
	if err == nil {
		s.counters = counters
	}
	return s, err
}

// build describes a message whose counters go on from those that there are. above are
// the messages that it is in.
func build(message protoreflect.MessageDescriptor, path string, counters *int, above []protoreflect.FullName) (*shape, error) {
	for _, name := range above {
		if name == message.FullName() {
			return nil, fmt.Errorf("%s holds itself", name)
		}
	}
	above = append(above[:len(above):len(above)], message.FullName())
	fields := message.Fields()
	s := &shape{byNumber: make(map[protowire.Number]*field), byName: make(map[string]*field)}
	for i := range fields.Len() {
		f, err := buildField(fields.Get(i), path, counters, above)
		if err != nil {
			return nil, err
		}
		s.byName[fields.Get(i).JSONName()] = f
		s.byName[string(fields.Get(i).Name())] = f
		if f.max > 0 || f.child != nil {
			s.byNumber[fields.Get(i).Number()] = f
		}
	}
	return s, nil
}

func buildField(d protoreflect.FieldDescriptor, path string, counters *int, above []protoreflect.FullName) (*field, error) {
	f := &field{path: path + string(d.Name()), number: d.Number(), wire: wireType(d.Kind())}
	if d.IsList() || d.IsMap() {
		f.max, f.ruled = maxElements(d)
		f.counter, f.isMap, f.element = *counters, d.IsMap(), &field{}
		*counters++
	}
	if d.IsMap() || d.Message() == nil || hasOwnJSON(d.Message()) && !isMask(d.Message()) {
		return f, nil
	}
	f.isMask = isMask(d.Message())
	var err error
	if !d.IsList() {
		f.child, err = build(d.Message(), f.path+".", counters, above)
		return f, err
	}
	own := 0 // each element is counted by itself
	if f.child, err = build(d.Message(), f.path+"[].", &own, above); err == nil {
		f.child.counters = own
		f.element.child, f.element.isMask = f.child, f.isMask
	}
	return f, err
}

// maxElements reads the rule.
func maxElements(d protoreflect.FieldDescriptor) (elements int, ruled bool) {
	rules, _ := proto.GetExtension(d.Options(), validate.E_Field).(*validate.FieldRules)
	most := rules.GetRepeated().GetMaxItems()
	if d.IsMap() {
		most = rules.GetMap().GetMaxPairs()
	}
	if most == 0 {
		return unruled, false
	}
	return int(most), true
}

const (
	maskName = protoreflect.FullName("google.protobuf.FieldMask")
	anyName  = protoreflect.FullName("google.protobuf.Any")
)

func isMask(m protoreflect.MessageDescriptor) bool { return m.FullName() == maskName }

// hasOwnJSON reports whether a message is written in JSON in a way of its own, without
// lists and maps.
func hasOwnJSON(m protoreflect.MessageDescriptor) bool {
	switch m.FullName() {
	case maskName, anyName, "google.protobuf.Timestamp", "google.protobuf.Duration":
		return true
	}
	return false
}

func wireType(kind protoreflect.Kind) protowire.Type {
	switch kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind, protoreflect.GroupKind:
		return protowire.BytesType
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	default:
		return protowire.VarintType
	}
}
