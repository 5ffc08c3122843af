package transport

import (
	"context"
	"encoding/binary"

	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/protocol"
)

// A StalledError is the error of a write to a stream whose client read nothing within the stall
// timeout. Earlier messages were sent completely, and nothing of this one.
type StalledError struct{}

func (*StalledError) Error() string { return "response write stalled" }

// Stalled identifies the error to packages that do not import this one.
func (*StalledError) Stalled() bool { return true }

// messages is the state of a gRPC response that is written in whole messages.
type messages struct {
	stream streamControl
	left   int64 // unwritten bytes of the current message
}

// wholeMessages enables writing in whole messages for gRPC over HTTP/2. It must be called on the
// handler's goroutine.
func (x *Exchange) wholeMessages() {
	if x.request.ProtoMajor != 2 || protocol.Of(x.request) != protocol.GRPC {
		return
	}
	if stream := x.streamOf(); stream != nil {
		x.messages = &messages{stream: stream}
	}
}

// writeMessages writes each message when the flow-control window has room for all of it.
func (x *Exchange) writeMessages(p []byte) (written int, err error) {
	m := x.messages
	for written < len(p) {
		if m.left == 0 {
			next := p[written:]
			if len(next) < codec.PrefixBytes {
				x.messages = nil // not connect: it writes complete prefixes
				n, err := x.write(next)
				return written + n, err
			}
			length := codec.PrefixBytes + int64(binary.BigEndian.Uint32(next[1:]))
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

// awaitWindow waits for a flow-control window of n bytes. Earlier messages are flushed first: the
// client may open its window only after it has received them.
func (x *Exchange) awaitWindow(n int64) error {
	if x.waitAborted.Load() {
		return &StalledError{}
	}
	stream := x.messages.stream
	wake := stream.ReserveWindow(n)
	if wake == nil {
		return nil
	}
	abort := make(chan struct{})
	x.mu.Lock()
	x.abortWait = abort
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		x.abortWait = nil
		x.mu.Unlock()
	}()
	x.slot.Release()
	x.writeOps.Add(1)
	defer x.writeOps.Add(1)
	if x.unflushed.Swap(false) {
		_ = x.control().Flush() // the next write returns the error
	}
	for ; wake != nil; wake = stream.ReserveWindow(n) {
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
