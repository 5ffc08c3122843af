package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/yourorg/userservice/service/codec"
)

// directTurn is the number of bytes written by other goroutines until the handler must write again, which takes its turn of the
// processors.
const directTurn = 4 << 10

// directStream is a stream on which other goroutines than the handler's can write.
type directStream interface {
	// TryWrite queues p as a whole without waiting, or returns false. If kick is true, Kick must be called.
	TryWrite(p []byte) (queued, kick bool)
	// Kick makes the queued output of the connection be sent.
	Kick()
}

var directBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 512)
	return &b
}}

// direct is the state of writes by other goroutines than the handler's.
type direct struct {
	buf  *[]byte // between BeginDirect and EndDirect: collects writes; nil: none
	turn int64   // Exchange.written when the handler's goroutine wrote last
	left []byte  // collected and not queued: the handler's goroutine writes it
}

// BeginDirect starts a write on another goroutine than the handler's, which must not write meanwhile. Writes until EndDirect
// are collected, and do not wait. It returns false if the handler must write.
func (x *Exchange) BeginDirect() bool {
	if _, ok := x.ResponseWriter.(directStream); !ok || x.text != nil || x.unflushed.Load() ||
		x.written.Load()-x.direct.turn > directTurn {
		return false
	}
	x.direct.buf, _ = directBuffers.Get().(*[]byte)
	return true
}

// WriteDirect is Write between BeginDirect and EndDirect.
func (x *Exchange) WriteDirect(p []byte) { *x.direct.buf = append(*x.direct.buf, p...) }

// WrittenDirect returns what was written since BeginDirect.
func (x *Exchange) WrittenDirect() []byte { return *x.direct.buf }

// EndDirect queues what was written since BeginDirect, and reports whether it did, and whether FlushDirect must be called. If queued
// is false, the handler must call FinishDirect before it writes.
func (x *Exchange) EndDirect() (queued, flush bool) {
	buf := x.direct.buf
	x.direct.buf = nil
	if queued = len(*buf) == 0; !queued {
		if stream, ok := x.ResponseWriter.(directStream); ok {
			queued, flush = stream.TryWrite(*buf)
		}
	}
	if queued {
		x.written.Add(int64(len(*buf)))
	} else {
		x.direct.left = append([]byte(nil), *buf...)
	}
	*buf = (*buf)[:0]
	directBuffers.Put(buf)
	return queued, flush
}

// FinishDirect writes what EndDirect could not queue, and returns the number of messages written. Its error is a StalledError, or
// context.Canceled because the client has disconnected.
func (x *Exchange) FinishDirect() (messages int, err error) {
	left := x.direct.left
	x.direct.left = nil
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
func (x *Exchange) IsDirect() bool { return x.direct.buf != nil }
