package bounds

import (
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const (
	// fieldBytes is what any field on the wire takes beside its content: a pointer or a
	// header in a slice that grows by doubling, and what an allocation is rounded up by.
	fieldBytes = 56
	// entryBytes is what an entry of a map takes beside its key and value.
	entryBytes = 144
	// numberBytes is what an element of a packed list takes in a slice that grows.
	numberBytes = 24
	// unknownMessageBytes stands for the size of a message whose Go type is not linked in.
	unknownMessageBytes = 256
	// maxDepth is the depth of messages within messages that is looked into. Deeper ones
	// take deepFactor times their length.
	maxDepth   = 32
	deepFactor = 64
)

// Binary returns how many bytes a message in binary form takes when it is decoded, at
// most. The descriptor may be nil, which costs precision. Beyond enough it counts no
// further.
func Binary(message protoreflect.MessageDescriptor, data []byte, enough int64) int64 {
	if message == nil {
		return deepFactor * int64(len(data))
	}
	return int64(len(data)) + shapeOf(message).size(data, 0, enough)
}

// shape is what has to be known of a message type to count.
type shape struct {
	bytes  int64 // of the Go struct
	fields map[protowire.Number]field
}

type field struct {
	bytes   int64                          // of each occurrence
	packed  protowire.Type                 // of the elements where the field is a list of numbers
	numbers bool                           // the field is a list of numbers
	message protoreflect.MessageDescriptor // nil: it is none
}

// shapes caches by message type; there are as many as the program has.
var shapes sync.Map // protoreflect.FullName -> *shape //nolint:gochecknoglobals // a cache of constants

func shapeOf(message protoreflect.MessageDescriptor) *shape {
	if known, ok := shapes.Load(message.FullName()); ok {
		s, _ := known.(*shape)
		return s
	}
	s := &shape{bytes: structBytes(message), fields: make(map[protowire.Number]field)}
	for i := range message.Fields().Len() {
		d := message.Fields().Get(i)
		f := field{bytes: fieldBytes, message: d.Message()}
		if d.IsMap() {
			f.bytes = entryBytes
		}
		if d.IsList() && d.IsPacked() || d.IsList() && d.Kind() != protoreflect.StringKind &&
			d.Kind() != protoreflect.BytesKind && d.Message() == nil {
			f.numbers, f.packed = true, wireType(d.Kind())
		}
		s.fields[d.Number()] = f
	}
	shapes.Store(message.FullName(), s)
	return s
}

func structBytes(message protoreflect.MessageDescriptor) int64 {
	if message.IsMapEntry() {
		return 0
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(message.FullName())
	if err != nil {
		return unknownMessageBytes
	}
	if t := reflect.TypeOf(kind.Zero().Interface()); t.Kind() == reflect.Pointer {
		return int64(t.Elem().Size())
	}
	return unknownMessageBytes
}

// size returns what the message takes beside its length on the wire, or more than enough.
func (s *shape) size(data []byte, depth int, enough int64) int64 {
	total := s.bytes
	for len(data) > 0 && total <= enough {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return total
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			// The decoder finds the end of the data within this field, but decodes what
			// the field has until there.
			return total + deepFactor*int64(len(data))
		}
		f, known := s.fields[number]
		if total += f.bytes; known && kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(data[n : n+size])
			total += f.content(content, depth, enough-total)
		}
		data = data[n+size:]
	}
	return total
}

func (f *field) content(content []byte, depth int, enough int64) int64 {
	switch {
	case f.numbers:
		return numberBytes * numbers(content, f.packed)
	case f.message == nil:
		return 0
	case depth == maxDepth:
		return deepFactor * int64(len(content))
	}
	return shapeOf(f.message).size(content, depth+1, enough)
}

// numbers returns how many elements a packed list has, at most.
func numbers(content []byte, kind protowire.Type) (n int64) {
	switch kind {
	case protowire.Fixed32Type:
		return int64(len(content) / 4)
	case protowire.Fixed64Type:
		return int64(len(content) / 8)
	default:
		for _, b := range content {
			if b < 0x80 {
				n++
			}
		}
		return n
	}
}

func wireType(kind protoreflect.Kind) protowire.Type {
	switch kind {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	default:
		return protowire.VarintType
	}
}
