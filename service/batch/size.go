package batch

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// Envelope is reserved for the rest of a response with items.
	Envelope = 1024
	// ShortItemBytes is the maximum encoded size of a short item.
	ShortItemBytes = 256
)

// SizeBudget is the number of bytes by which a response may exceed the short form of its items.
// When it is exhausted the remaining items are short, so the response fits a message.
type SizeBudget int

// NewSizeBudget returns the budget of a response of maxBytes with items of a size.
func NewSizeBudget(maxBytes, items, itemBytes int) SizeBudget {
	return SizeBudget(maxBytes - Envelope - items*itemBytes)
}

// Reserve reports whether the budget has the bytes, and takes them.
func (b *SizeBudget) Reserve(bytes int) bool {
	if int(*b) < bytes {
		return false
	}
	*b -= SizeBudget(bytes)
	return true
}

// EmbeddedSize returns the encoded size of a list element with a field number below 16.
func EmbeddedSize(m proto.Message) int {
	return 1 + protowire.SizeBytes(proto.Size(m))
}
