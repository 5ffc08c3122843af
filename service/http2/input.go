package http2

import (
	"io"
	"sync"
)

const (
	// smallInput fits the frames of several small requests, largeInput a frame of the largest size.
	smallInput = 4 << 10
	largeInput = 2 * minMaxFrame
)

// input is the buffered input of a connection.
type input struct {
	src        io.Reader
	buf        *[]byte // nil: parked
	start, end int     // unread bytes of buf
	maxFrame   uint32
	lastRead   int
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
func (in *input) fill() error {
	n, err := in.src.Read((*in.buf)[in.end:])
	in.end += n
	in.lastRead = n
	if n > 0 {
		return nil
	}
	return err
}

// fit makes room for the rest of the next frame, or of its header.
func (in *input) fit(meter Meter) error {
	need := frameHeaderLen
	if in.end-in.start >= frameHeaderLen {
		need += int(parseFrameHeader((*in.buf)[in.start:]).length)
	}
	switch {
	case in.buf == nil:
		in.buf = getInput(need)
	case in.start == in.end && len(*in.buf) > smallInput && in.lastRead <= smallInput:
		in.release()
		in.buf = getInput(need)
		return meter.Input(0)
	case need > len(*in.buf):
		larger := getInput(need)
		n := copy(*larger, (*in.buf)[in.start:in.end])
		in.release()
		in.buf, in.end = larger, n
		return meter.Input(len(*larger))
	case in.start == in.end:
		in.start, in.end = 0, 0
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
