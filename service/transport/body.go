package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// enveloped reports whether a body of the content type is a row of messages, each
// with its length in front, as all protocols have it but unary Connect.
func enveloped(contentType string) bool {
	return strings.HasPrefix(contentType, "application/grpc") ||
		strings.HasPrefix(contentType, "application/connect+")
}

// limitedBody is a request body whose messages keep within a limit. The first byte
// of a message that does not, or that would not, is not given out: the reader gets
// the error in its place, and nothing more is read.
type limitedBody struct {
	io.ReadCloser

	limit    int64
	tooLarge func(limit int64) error
	frames   *frames // nil: the body is one message
	exchange *Exchange

	known bool  // a body that is one message says itself that it is too large
	read  int64 // of a body that is one message
	err   error // given to every further Read
}

// Read reads within the limit.
func (b *limitedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	switch {
	case b.known:
		err = b.tooLarge(b.limit)
	case b.frames != nil:
		n, err = b.readFrames(p)
	default:
		n, err = b.readWhole(p)
	}
	if err != nil {
		b.err = err
	}
	if errors.Is(err, io.EOF) {
		b.exchange.bodyEnded()
	}
	return n, err
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
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.read > b.limit {
		return n - 1, b.tooLarge(b.limit)
	}
	return n, err
}

// frames is where a reader stands in a row of messages.
type frames struct {
	left   int64   // of the present message
	prefix [5]byte // of the next: flags and length
	have   int     // of prefix
	given  int     // of prefix
}

func (b *limitedBody) readFrames(p []byte) (int, error) {
	f := b.frames
	if len(p) == 0 {
		return 0, nil
	}
	if f.left > 0 {
		n, err := b.ReadCloser.Read(p[:min(int64(len(p)), f.left)])
		f.left -= int64(n)
		return n, err
	}
	if f.given == f.have {
		// The prefix is looked at as a whole before any of it is given out.
		n, err := io.ReadFull(b.ReadCloser, f.prefix[f.have:])
		f.have += n
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // let the reader see the stump, and the end after it
		}
		if err != nil {
			return 0, err
		}
		if f.have == len(f.prefix) {
			if size := int64(binary.BigEndian.Uint32(f.prefix[1:])); size > b.limit {
				return 0, b.tooLarge(b.limit)
			}
		}
	}
	n := copy(p, f.prefix[f.given:f.have])
	f.given += n
	if f.given == len(f.prefix) {
		f.left = int64(binary.BigEndian.Uint32(f.prefix[1:]))
		f.have, f.given = 0, 0
	}
	return n, nil
}
