package transport

import (
	"context"
	"encoding/binary"
	"strings"
)

// envelopeBytes is the length of the prefix of a gRPC message: flags and length.
const envelopeBytes = 5

// A StalledError is the error of a write to a stream whose reader consumed nothing for the
// stall timeout. The messages before were sent as a whole, and nothing of this one was.
type StalledError struct{}

// Error says what has happened.
func (*StalledError) Error() string { return "response write stalled" }

// Stalled is by what packages that do not import this one know the error.
func (*StalledError) Stalled() bool { return true }

// messages is the state of a gRPC response that is sent message by message.
type messages struct {
	stream uint32
	left   int64 // bytes of the present message that are to be written
}

// wholeMessages lets the response wait for room for whole messages from now on, where its
// connection and its protocol allow that. It belongs to the handler's goroutine.
func (x *Exchange) wholeMessages() {
	kind := x.request.Header.Get("Content-Type")
	if x.conn == nil || x.request.ProtoMajor != 2 || !strings.HasPrefix(kind, "application/grpc") || strings.HasPrefix(kind, webBinary) {
		return
	}
	if stream := streamOf(x.ResponseWriter); stream != 0 && x.conn.windows != nil {
		x.messages = &messages{stream: stream}
	}
}

// writeMessages writes messages, each once there is room for the whole of it.
func (x *Exchange) writeMessages(p []byte) (written int, err error) {
	m := x.messages
	for written < len(p) {
		if m.left == 0 {
			next := p[written:]
			if len(next) < envelopeBytes {
				x.messages = nil // connect writes prefixes as a whole
				n, err := x.write(next)
				return written + n, err
			}
			length := envelopeBytes + int64(binary.BigEndian.Uint32(next[1:]))
			if err := x.awaitWindow(length); err != nil {
				return written, err
			}
			m.left = length
		}
		n, err := x.write(p[written:min(int64(len(p)), int64(written)+m.left)])
		written += n
		m.left -= int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// awaitWindow waits for room for n bytes. What was written before is flushed first: the
// client may open its window only when it has that.
func (x *Exchange) awaitWindow(n int64) error {
	if x.aborted.Load() {
		return &StalledError{}
	}
	windows, stream := x.conn.windows, x.messages.stream
	wake := windows.reserve(stream, n)
	if wake == nil {
		return nil
	}
	abort := make(chan struct{})
	x.mu.Lock()
	x.abort = abort
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		x.abort = nil
		x.mu.Unlock()
	}()
	x.slot.Release()
	x.ops.Add(1)
	defer x.ops.Add(1)
	if x.unsent.Swap(false) {
		_ = x.control.Flush() // the next write has the error
	}
	for ; wake != nil; wake = windows.reserve(stream, n) {
		select {
		case <-wake:
		case <-abort:
			return &StalledError{}
		case <-x.request.Context().Done():
			return context.Cause(x.request.Context())
		}
	}
	return nil
}
