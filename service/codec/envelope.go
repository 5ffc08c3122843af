package codec

import "strings"

const (
	// PrefixBytes is the length of the prefix of a message in a stream, and in unary gRPC calls: flags
	// and length.
	PrefixBytes = 5
	// CompressedFlag is the flag of a compressed message.
	CompressedFlag = 1
)

// Enveloped reports whether a body of the content type is a sequence of messages with prefixes. Only
// that of a unary Connect call is not.
func Enveloped(contentType string) bool {
	return strings.HasPrefix(contentType, "application/grpc") ||
		strings.HasPrefix(contentType, "application/connect+")
}
