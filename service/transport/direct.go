package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/yourorg/userservice/service/codec"
)

// directTurn is the number of bytes written by other goroutines until the handler must write again, which takes its turn of the
// processors.
const directTurn = 4 << 10

// directStream is a stream on which other goroutines than the handler's can write.
type directStream interface {
	// Connection identifies the connection.
	Connection() any
	// TryWrite queues p as a whole without waiting, or returns false. If kick is true, Kick must be called.
	TryWrite(p []byte) (queued, kick bool)
	// Kick makes the queued output of the connection be sent.
	Kick()
}

// direct is the state of writes by other goroutines than the handler's.
type direct struct {
	written []byte // since BeginDirect; after EndDirect, what the handler's goroutine must write
	turn    int64  // Exchange.written when the handler's goroutine wrote last
}

// DirectConnection identifies the connection, for whose streams FlushDirect is. It is nil if only the handler can write.
func (x *Exchange) DirectConnection() any {
	if stream, ok := x.ResponseWriter.(directStream); ok && x.text == nil {
		return stream.Connection()
	}
	return nil
}

// BeginDirect starts a write on another goroutine than the handler's, which must not write meanwhile. Writes until EndDirect
// are collected, and do not wait. It returns false if the handler must write.
func (x *Exchange) BeginDirect() bool {
	if x.unflushed.Load() || x.written.Load()-x.direct.turn > directTurn {
		return false
	}
	x.collecting = true
	return true
}

// WriteDirect writes p between BeginDirect and EndDirect. p must not be modified afterwards.
func (x *Exchange) WriteDirect(p []byte) {
	if x.direct.written == nil {
		x.direct.written = p[:len(p):len(p)]
		return
	}
	x.direct.written = append(x.direct.written, p...)
}

// WrittenDirect returns what was written since BeginDirect.
func (x *Exchange) WrittenDirect() []byte { return x.direct.written }

// EndDirect queues what was written since BeginDirect, and reports whether it did, and whether FlushDirect must be called. If queued
// is false, the handler must call FinishDirect before it writes.
func (x *Exchange) EndDirect() (queued, flush bool) {
	x.collecting = false
	if queued = len(x.direct.written) == 0; !queued {
		if stream, ok := x.ResponseWriter.(directStream); ok {
			queued, flush = stream.TryWrite(x.direct.written)
		}
	}
	if queued {
		x.written.Add(int64(len(x.direct.written)))
		x.direct.written = nil
	}
	return queued, flush
}

// FinishDirect writes what EndDirect could not queue, and returns the number of messages written. Its error is a StalledError, or
// context.Canceled because the client has disconnected.
func (x *Exchange) FinishDirect() (messages int, err error) {
	left := x.direct.written
	x.direct.written = nil
	written, err := x.Write(left)
	for sent := left[:written]; len(sent) >= codec.PrefixBytes; messages++ {
		length := codec.PrefixBytes + int(binary.BigEndian.Uint32(sent[1:]))
		if length > len(sent) {
			break
		}
		sent = sent[length:]
	}
	if err != nil && !errors.As(err, new(*StalledError)) {
		return messages, fmt.Errorf("write response: %w", context.Canceled)
	}
	return messages, err
}

// FlushDirect makes the output queued by EndDirect be sent. It does not wait, and can be called at any time.
func (x *Exchange) FlushDirect() {
	if stream, ok := x.ResponseWriter.(directStream); ok {
		stream.Kick()
	}
}

// IsDirect reports whether writes are collected, see BeginDirect.
func (x *Exchange) IsDirect() bool { return x.collecting }
