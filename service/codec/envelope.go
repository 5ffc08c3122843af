package codec

const (
	// PrefixBytes is the length of the prefix of a message in a stream, and in unary gRPC calls: flags
	// and length.
	PrefixBytes = 5
	// CompressedFlag is the flag of a compressed message.
	CompressedFlag = 1
)
