package http2

// A Meter accounts for the memory of a connection. Only Admit may block. An error ends the connection.
type Meter interface {
	// Header is called with the size of an incomplete header block, and with 0 at its end.
	Header(encoded int) error
	// Input is called with the size of the input buffer when a large frame needs a large one, and with 0 afterwards.
	Input(size int) error
	// Queue is called with changes of the size of the headers of requests that wait for a handler.
	Queue(change int64) error
	// Unread is called with changes of the number of unread body bytes.
	Unread(change int64)
	// Admit is called after body bytes were received, before more input is read. It may wait for memory.
	Admit() error
	// Output is called before more than minQueued bytes of output are queued, and with 0 when all were written. It
	// returns how many bytes may be queued.
	Output(bytes int) (allowed int)
	// Transferred is called after DATA was sent.
	Transferred()
}

// minQueued is the output that can be queued without Meter.Output.
const minQueued = 8 << 10

// noMeter has no limits.
type noMeter struct{}

// Header accepts every size.
func (noMeter) Header(int) error { return nil }

// Input accepts every size.
func (noMeter) Input(int) error { return nil }

// Queue accepts every size.
func (noMeter) Queue(int64) error { return nil }

// Unread does nothing.
func (noMeter) Unread(int64) {}

// Admit does not wait.
func (noMeter) Admit() error { return nil }

// Output allows all bytes.
func (noMeter) Output(bytes int) int { return bytes }

// Transferred does nothing.
func (noMeter) Transferred() {}
