package budget

// Kind says what reserved bytes are for. Metrics count by it.
type Kind uint8

// The kinds of reservations.
const (
	Connection   Kind = iota // base cost of an open connection, its handshake and its write buffer
	Header                   // header blocks, while they arrive and while a request refers to them
	Request                  // base cost of a request: goroutine, stack, response buffer
	Body                     // request bodies: buffered by the server, and read but not decoded
	Decompressed             // output of decompression
	Message                  // decoded messages
	Response                 // responses until the peer has consumed them
	Compressor               // state of compressors
	Stream                   // cost of a stream beyond its request
	Subscription             // followed users
	Write                    // queued writes

	kinds
)

// Kinds returns all kinds.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// String returns the value of the kind as a label of a metric.
func (k Kind) String() string {
	return [...]string{
		"connection", "header", "request", "body", "decompressed", "message", "response", "compressor", "stream",
		"subscription", "write",
	}[k]
}

// grows reports whether a request decides how large the kind becomes.
func (k Kind) grows() bool {
	switch k {
	case Body, Decompressed, Message, Response:
		return true
	default:
		return false
	}
}

// Class says from which part of the budget a caller draws.
type Class uint8

// The classes of callers.
const (
	// Anonymous callers have shown no credentials. Together they have a quarter of the
	// budget, and one of them has half of that.
	Anonymous Class = iota
	// Pending is for requests whose credentials are not verified yet, by address. They
	// have an eighth of the budget, and those of one address have half of that.
	Pending
	// Known callers are principals, or addresses where authentication is disabled. One of
	// them has a quarter of the budget.
	Known
	// System is for health checks. It has a small reserve beside the budget, which no
	// level closes.
	System

	classes
)
