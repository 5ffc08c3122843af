package bounds

import (
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const (
	// fieldBytes is the overhead of a field: a pointer or a header in a slice that grows by
	// doubling, and the rounding of its allocation.
	fieldBytes = 56
	// entryBytes is the overhead of a map entry.
	entryBytes = 144
	// numberBytes is the memory of an element of a packed list, in a growing slice.
	numberBytes = 24
	// unknownMessageBytes is the assumed struct size of a message without a linked Go type.
	unknownMessageBytes = 256
	// maxDepth is the depth up to which nested messages are scanned. Deeper ones count
	// deepFactor times their length.
	maxDepth   = 32
	deepFactor = 64
)

// Binary returns an upper bound of the memory that decoding a binary message allocates, in
// bytes. A nil descriptor makes the bound less tight. It stops counting beyond enough.
func Binary(message protoreflect.MessageDescriptor, data []byte, enough int64) int64 {
	if message == nil {
		return deepFactor * int64(len(data))
	}
	return int64(len(data)) + shapeOf(message).size(data, 0, enough)
}

// shape describes a message type for counting.
type shape struct {
	bytes int64 // of the Go struct
	// The fields by number: those with numbers below maxDense, and the others.
	dense  []*field
	sparse map[protowire.Number]*field
}

// maxDense bounds the table of fields of a message type.
const maxDense = 64

type field struct {
	bytes   int64          // of each occurrence
	packed  protowire.Type // wire type of the elements of a list of numbers
	numbers bool           // the field is a list of numbers
	message *shape         // nil: not a message
}

// shapes is bounded by the number of message types in the binary.
var shapes sync.Map // protoreflect.FullName -> *shape //nolint:gochecknoglobals // a cache of constants

func shapeOf(message protoreflect.MessageDescriptor) *shape {
	if cached, ok := shapes.Load(message.FullName()); ok {
		s, _ := cached.(*shape)
		return s
	}
	s := newShape(message, make(map[protoreflect.FullName]*shape))
	shapes.Store(message.FullName(), s)
	return s
}

// newShape returns the shape of the message type, and adds it to those that were made.
func newShape(message protoreflect.MessageDescriptor, made map[protoreflect.FullName]*shape) *shape {
	if s := made[message.FullName()]; s != nil {
		return s
	}
	s := &shape{bytes: structBytes(message), dense: make([]*field, maxDense), sparse: make(map[protowire.Number]*field)}
	made[message.FullName()] = s
	for i := range message.Fields().Len() {
		d := message.Fields().Get(i)
		f := &field{bytes: fieldBytes}
		if d.Message() != nil {
			f.message = newShape(d.Message(), made)
		}
		if d.IsMap() {
			f.bytes = entryBytes
		}
		if d.IsList() && d.IsPacked() || d.IsList() && d.Kind() != protoreflect.StringKind &&
			d.Kind() != protoreflect.BytesKind && d.Message() == nil {
			f.numbers, f.packed = true, wireType(d.Kind())
		}
		if d.Number() < maxDense {
			s.dense[d.Number()] = f
		} else {
			s.sparse[d.Number()] = f
		}
	}
	return s
}

// field returns the field with the number, nil if there is none.
func (s *shape) field(number protowire.Number) *field {
	if number < maxDense {
		return s.dense[number]
	}
	return s.sparse[number]
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

// size returns the memory of the message in addition to its encoded length. The result may
// be incomplete if it exceeds enough.
func (s *shape) size(data []byte, depth int, enough int64) int64 {
	total := s.bytes
	for len(data) > 0 && total <= enough {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return total
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			// The field is truncated. The decoder may decode its content before it fails.
			return total + deepFactor*int64(len(data))
		}
		if f := s.field(number); f != nil {
			total += f.bytes
			if kind == protowire.BytesType {
				content, _ := protowire.ConsumeBytes(data[n : n+size])
				total += f.content(content, depth, enough-total)
			}
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
	return f.message.size(content, depth+1, enough)
}

// numbers returns the maximum number of elements of a packed list.
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
