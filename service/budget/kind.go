package budget

// Kind is the purpose of reserved bytes. It is a metric label.
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
	Subscription             // subscriptions to users
	Write                    // queued writes, and what Ahead reserves

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

// String returns the metric label.
func (k Kind) String() string {
	return [...]string{
		"connection", "header", "request", "body", "decompressed", "message", "response", "compressor", "stream",
		"subscription", "write",
	}[k]
}

// grows reports whether the size of the kind depends on the content of requests.
func (k Kind) grows() bool {
	switch k {
	case Body, Decompressed, Message, Response:
		return true
	default:
		return false
	}
}

// Class is the part of the budget that a caller uses.
type Class uint8

// The classes of callers.
const (
	// Anonymous is for callers without credentials. Together they can reserve a quarter of the
	// budget, and each can reserve half of that.
	Anonymous Class = iota
	// Pending is for requests whose credentials are not verified yet, by address. Together they can
	// reserve an eighth of the budget, and each address half of that.
	Pending
	// Known is for principals, or for addresses if authentication is disabled. Each can reserve a
	// quarter of the budget.
	Known
	// System is for health checks. It has a small separate reserve, independent of the level.
	System
	// Shared is for data that callers share. It is bounded by its users and by the total.
	Shared

	classes
)

// ofCallers reports whether the accounts of the class are those of callers.
func (c Class) ofCallers() bool { return c != System && c != Shared }
