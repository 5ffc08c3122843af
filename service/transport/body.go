package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/yourorg/userservice/service/budget"
)

// enveloped reports whether a body of the content type is a row of messages, each
// with its length in front, as all protocols have it but unary Connect.
func enveloped(contentType string) bool {
	return strings.HasPrefix(contentType, "application/grpc") ||
		strings.HasPrefix(contentType, "application/connect+")
}

// bodyFactor is how many bytes a byte of a message takes while it arrives: it is read
// into a buffer that doubles as it grows.
const bodyFactor = 2

// limitedBody is a request body whose messages keep within a limit. The first byte
// of a message that does not, or that would not, is not given out: the reader gets
// the error in its place, and nothing more is read.
type limitedBody struct {
	io.ReadCloser

	limit    int64
	opts     *GuardOptions
	frames   *frames // nil: the body is one message
	exchange *Exchange

	known bool  // a body that is one message says itself that it is too large
	read  int64 // of a body that is one message
	kept  int64 // reserved for the message that is not whole, or for the whole body of a call
	err   error // given to every further Read
}

// Read reads within the limit.
func (b *limitedBody) Read(p []byte) (n int, err error) {
	b.exchange.reading.Lock()
	defer b.exchange.reading.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	switch {
	case b.known:
		err = b.opts.TooLarge(b.exchange.request, b.limit)
	case b.frames != nil:
		n, err = b.readFrames(p)
	default:
		n, err = b.readWhole(p)
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.exchange.bodyEnded()
	case b.exchange.late.Load():
		err = b.opts.Late() // that of the connection tells of its addresses
	}
	b.err = err
	return n, err
}

// take reads bytes of a message, which are kept until it is whole.
func (b *limitedBody) take(p []byte) (int, error) {
	n, err := b.read1(p)
	if n > 0 {
		b.exchange.came.Add(1)
	}
	kept := bodyFactor * int64(n)
	if b.exchange.memory.Grow(budget.Body, kept) != nil {
		return n, b.opts.Overloaded(b.exchange.request)
	}
	b.kept += kept
	return n, err
}

// read1 waits for bytes of the body.
func (b *limitedBody) read1(p []byte) (int, error) {
	held := b.exchange.slot.Release()
	n, err := b.ReadCloser.Read(p)
	b.exchange.slot.Resume(held)
	return n, b.readFault(err)
}

// forget returns the bytes reserved for a message. The rest is returned at the end of the
// request.
func (b *limitedBody) forget() {
	b.exchange.memory.Shrink(budget.Body, b.kept)
	b.kept = 0
}

// begun notes that a message of a stream has to come as a whole from now on.
func (b *limitedBody) begun() {
	if b.exchange.stream {
		b.exchange.bodyDue()
	}
}

// whole notes that a message of a stream has come, and that the next may take its time.
func (b *limitedBody) whole() {
	if b.exchange.stream {
		b.exchange.bodyClosed()
		b.forget()
	}
}

// Close closes the body. Over HTTP/1.1 this reads what is left, if it is little, and
// so has to be guarded, of a stream too.
func (b *limitedBody) Close() error {
	b.exchange.bodyDue()
	err := b.ReadCloser.Close()
	b.exchange.bodyClosed()
	return err
}

// readWhole asks for one byte more than is allowed, to know whether there is one.
func (b *limitedBody) readWhole(p []byte) (int, error) {
	room := b.limit - b.read
	if int64(len(p)) > room+1 {
		p = p[:room+1]
	}
	n, err := b.take(p)
	b.read += int64(n)
	if b.read > b.limit {
		return n - 1, b.opts.TooLarge(b.exchange.request, b.limit)
	}
	return n, err
}

// frames is where a reader stands in a row of messages.
type frames struct {
	compression bool              // the request names one
	left        int64             // of the present message
	prefix      [prefixBytes]byte // of the next: flags and length
	have        int               // of prefix
	given       int               // of prefix
}

// size is that of the message, as the prefix has it.
func (f *frames) size() int64 { return int64(binary.BigEndian.Uint32(f.prefix[1:])) }

func (b *limitedBody) readFrames(p []byte) (int, error) {
	f := b.frames
	if len(p) == 0 {
		return 0, nil
	}
	if f.left > 0 {
		b.begun()
		n, err := b.take(p[:min(int64(len(p)), f.left)])
		if f.left -= int64(n); f.left == 0 {
			b.whole()
		} else if errors.Is(err, io.EOF) {
			err = b.fault(BodyMalformed, "the body ends within a message: %d of %d bytes came", f.size()-f.left, f.size())
		}
		return n, err
	}
	if f.given == f.have {
		if err := b.readPrefix(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.prefix[f.given:f.have])
	f.given += n
	if f.given == len(f.prefix) {
		f.left = f.size()
		f.have, f.given = 0, 0
		if f.left == 0 {
			b.whole()
		}
	}
	return n, nil
}

// readPrefix reads the next prefix as a whole, before any of it is given out.
func (b *limitedBody) readPrefix() error {
	f := b.frames
	for f.have < len(f.prefix) {
		if f.have > 0 {
			b.begun()
		}
		n, err := b.read1(f.prefix[f.have:])
		f.have += n
		switch {
		case errors.Is(err, io.EOF) && f.have > 0 && f.have < len(f.prefix):
			return b.fault(BodyMalformed, "the body ends within the prefix of a message: %d of %d bytes came", f.have, len(f.prefix))
		case err != nil && f.have < len(f.prefix):
			return err
		}
	}
	return b.checkPrefix()
}
