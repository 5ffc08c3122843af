package http2

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	// smallInput fits the frames of several small requests, largeInput a frame of the largest size.
	smallInput = 4 << 10
	largeInput = 2 * minMaxFrame
)

// input is the buffered input of a connection. It has no buffer while it is empty and waits, if the connection permits.
type input struct {
	src        io.Reader
	hooks      *Hooks
	buf        *[]byte // nil: none
	start, end int     // unread bytes of buf
	maxFrame   uint32
	lastRead   int

	readFile func(fd uintptr) bool // reads in place of src, see fillRaw; nil: not supported
	n        int                   // result of readFile
	err      error
}

// shortRead is the size of the first read of an empty input with Hooks.ShortReads.
const shortRead = 16

func (in *input) init(c *conn) {
	in.src, in.maxFrame, in.hooks = c.net, c.srv.maxFrame, &c.hooks
	if file, ok := c.net.(*net.TCPConn); ok && c.hooks.Raw == nil {
		if raw, err := file.SyscallConn(); err == nil {
			c.hooks.Raw = func() syscall.RawConn { return raw }
		}
	}
	if _, ok := c.net.(*tls.Conn); ok {
		c.hooks.ShortReads = true
	}
	if c.hooks.Raw != nil {
		in.initRaw()
	}
}

var (
	smallInputs = sync.Pool{New: func() any { return newInput(smallInput) }}
	largeInputs = sync.Pool{New: func() any { return newInput(largeInput) }}
)

func newInput(size int) *[]byte {
	b := make([]byte, size)
	return &b
}

// buffered returns the next frame if all of it is buffered. The payload is valid until the next read.
func (in *input) buffered() (h frameHeader, payload []byte, ok bool, err error) {
	if in.end-in.start < frameHeaderLen {
		return h, nil, false, nil
	}
	p := (*in.buf)[in.start:in.end]
	h = parseFrameHeader(p)
	if h.length > in.maxFrame {
		return h, nil, false, connError{errFrameSize, "frame exceeds SETTINGS_MAX_FRAME_SIZE"}
	}
	size := frameHeaderLen + int(h.length)
	if len(p) < size {
		return h, nil, false, nil
	}
	in.start += size
	return h, p[frameHeaderLen:size], true, nil
}

// fill reads more input. fit was called before.
func (in *input) fill() (err error) {
	if in.readFile != nil {
		if raw := in.hooks.Raw(); raw != nil {
			return in.fillRaw(raw)
		}
	}
	var n int
	if in.buf == nil && in.hooks.ShortReads {
		var first [shortRead]byte
		n, err = in.src.Read(first[:])
		in.buf = getInput(smallInput)
		copy(*in.buf, first[:n])
	} else {
		if in.buf == nil {
			in.buf = getInput(smallInput)
		}
		n, err = in.src.Read((*in.buf)[in.end:])
	}
	in.end += n
	in.lastRead = n
	if n > 0 {
		return nil
	}
	return err
}

// fillRaw reads from a file.
func (in *input) fillRaw(raw syscall.RawConn) error {
	in.n, in.err = 0, nil
	err := raw.Read(in.readFile)
	if in.hooks.AfterRead != nil {
		in.hooks.AfterRead()
	}
	in.end += in.n
	in.lastRead = in.n
	switch {
	case err != nil:
		return err
	case in.err != nil:
		return in.err
	case in.n == 0:
		return io.EOF
	}
	return nil
}

// fit makes room for the rest of the next frame. It releases the buffer of an empty input.
func (in *input) fit(meter Meter) error {
	if in.start == in.end {
		large := in.buf != nil && len(*in.buf) > smallInput
		if large && in.lastRead > smallInput { // more is likely to follow
			in.start, in.end = 0, 0
			return nil
		}
		if in.release(); large {
			return meter.Input(0)
		}
		return nil
	}
	need := frameHeaderLen
	if in.end-in.start >= frameHeaderLen {
		need += int(parseFrameHeader((*in.buf)[in.start:]).length)
	}
	switch {
	case need > len(*in.buf):
		larger := getInput(need)
		n := copy(*larger, (*in.buf)[in.start:in.end])
		in.release()
		in.buf, in.end = larger, n
		return meter.Input(len(*larger))
	case need > len(*in.buf)-in.start || in.end == len(*in.buf):
		in.end = copy(*in.buf, (*in.buf)[in.start:in.end])
		in.start = 0
	}
	return nil
}

func getInput(need int) *[]byte {
	pool := &smallInputs
	switch {
	case need > largeInput:
		return newInput(need)
	case need > smallInput:
		pool = &largeInputs
	}
	return pool.Get().(*[]byte) //nolint:errcheck // the pool has no other type
}

// release returns the buffer to its pool.
func (in *input) release() {
	if in.buf == nil {
		return
	}
	switch len(*in.buf) {
	case smallInput:
		smallInputs.Put(in.buf)
	case largeInput:
		largeInputs.Put(in.buf)
	}
	in.buf, in.start, in.end = nil, 0, 0
}
