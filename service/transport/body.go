package transport

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net/http"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/codec"
)

// bodyFactor is the memory per message byte during reading: buffers double as they grow.
const bodyFactor = 2

// limitedBody is a request body with a limit for each message. A read of the first byte over the
// limit returns the error, and reading stops.
type limitedBody struct {
	io.ReadCloser

	limit    int64
	opts     *GuardOptions
	frames   *frames // nil: the body is a single message
	first    frames  // memory of frames
	exchange *Exchange
	request  *http.Request // with the context of the handler

	tooLarge bool  // Content-Length of a single message is over the limit
	read     int64 // bytes of a single message
	all      int64 // bytes read
	received bool  // the whole body has been received: reads do not wait
	reserved int64 // reserved bytes of the incomplete message, or of the whole body of a unary call
	err      error // returned by all further reads
}

func (b *limitedBody) Read(p []byte) (n int, err error) {
	b.exchange.readMu.Lock()
	defer b.exchange.readMu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	switch {
	case b.tooLarge:
		err = b.opts.TooLarge(b.request, b.limit)
	case b.frames != nil:
		n, err = b.readFrames(p)
	default:
		n, err = b.readWhole(p)
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.exchange.bodyEnded()
	case b.exchange.bodyTimedOut.Load():
		err = b.opts.BodyTimedOut() // the connection's error contains addresses
	}
	b.err = err
	return n, err
}

// readMessage reads bytes of a message and reserves memory for them.
func (b *limitedBody) readMessage(p []byte) (int, error) {
	n, err := b.readBody(p)
	if n > 0 {
		b.exchange.bodyReads.Add(1)
	}
	size := bodyFactor * int64(n)
	if b.exchange.memory.Grow(budget.Body, size) != nil {
		return n, b.opts.Overloaded(b.request)
	}
	b.reserved += size
	return n, err
}

// readBody reads from the body, without the slot if the read can wait or the request is not small.
func (b *limitedBody) readBody(p []byte) (int, error) {
	yields := !b.exchange.isSmall() || !b.isReceived() && !b.isBuffered(len(p))
	held := yields && b.exchange.slot.Release()
	b.exchange.bodyBegun = true
	n, err := b.ReadCloser.Read(p)
	b.exchange.slot.Resume(held)
	b.all += int64(n)
	return n, b.mapError(err)
}

// isBuffered reports whether n bytes can be read without waiting.
func (b *limitedBody) isBuffered(n int) bool {
	source, known := b.ReadCloser.(interface{ Buffered() int })
	return known && source.Buffered() >= n
}

// isReceived reports whether the whole body has been received.
func (b *limitedBody) isReceived() bool {
	if !b.received {
		received, known := isReceived(b.ReadCloser)
		b.received = received || !known && b.all == b.request.ContentLength
	}
	return b.received
}

// releaseMessage releases the reservation of a message. The rest is released at the end of the
// request.
func (b *limitedBody) releaseMessage() {
	b.exchange.memory.Shrink(budget.Body, b.reserved)
	b.reserved = 0
}

// messageStarted starts the timeout of a message in a stream.
func (b *limitedBody) messageStarted() {
	if b.exchange.stream {
		b.exchange.startBodyTimeout()
	}
}

// messageEnded ends the timeout of a message in a stream.
func (b *limitedBody) messageEnded() {
	if b.exchange.stream {
		b.exchange.stopBodyTimeout()
		b.releaseMessage()
	}
}

// Close ends reading. A rest of the body is left for discardBody. Otherwise the body is closed, for which net/http reads
// a short rest over HTTP/1.1, so the timeout applies, in a stream too.
func (b *limitedBody) Close() error {
	if b.leave() {
		return nil
	}
	b.exchange.startBodyTimeout()
	err := b.ReadCloser.Close()
	b.exchange.stopBodyTimeout()
	return err
}

// leave ends reading of a body that was not read to its end. It returns false for one that is not discarded, and during
// a read, which only closing the body ends.
func (b *limitedBody) leave() bool {
	if b.exchange.system || !b.exchange.bodyUnread.Load() || !b.exchange.readMu.TryLock() {
		return false
	}
	defer b.exchange.readMu.Unlock()
	b.err = cmp.Or(b.err, http.ErrBodyReadAfterClose)
	b.exchange.stopBodyTimeout()
	return true
}

// readWhole requests one byte more than the limit, to detect a larger message.
func (b *limitedBody) readWhole(p []byte) (int, error) {
	left := b.limit - b.read
	if int64(len(p)) > left+1 {
		p = p[:left+1]
	}
	n, err := b.readMessage(p)
	b.read += int64(n)
	if b.read > b.limit {
		return n - 1, b.opts.TooLarge(b.request, b.limit)
	}
	return n, err
}

// frames is the position in a sequence of messages.
type frames struct {
	compression bool                    // the request names a compression
	left        int64                   // unread bytes of the current message
	prefix      [codec.PrefixBytes]byte // of the next message: flags and length
	have        int                     // bytes of prefix read
	returned    int                     // bytes of prefix returned
}

// size returns the length of the message in the prefix.
func (f *frames) size() int64 { return int64(binary.BigEndian.Uint32(f.prefix[1:])) }

func (b *limitedBody) readFrames(p []byte) (int, error) {
	f := b.frames
	if len(p) == 0 {
		return 0, nil
	}
	if f.left > 0 {
		b.messageStarted()
		n, err := b.readMessage(p[:min(int64(len(p)), f.left)])
		if f.left -= int64(n); f.left == 0 {
			b.messageEnded()
		} else if errors.Is(err, io.EOF) {
			err = b.invalid(BodyMalformed, "body ends within a message: got %d of %d bytes", f.size()-f.left, f.size())
		}
		return n, err
	}
	if f.returned == f.have {
		if err := b.readPrefix(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.prefix[f.returned:f.have])
	f.returned += n
	if f.returned == len(f.prefix) {
		f.left = f.size()
		f.have, f.returned = 0, 0
		if f.left == 0 {
			b.messageEnded()
		}
	}
	return n, nil
}

// readPrefix reads the whole prefix before any of it is returned.
func (b *limitedBody) readPrefix() error {
	f := b.frames
	for f.have < len(f.prefix) {
		if f.have > 0 {
			b.messageStarted()
		}
		n, err := b.readBody(f.prefix[f.have:])
		f.have += n
		switch {
		case errors.Is(err, io.EOF) && f.have > 0 && f.have < len(f.prefix):
			return b.invalid(BodyMalformed, "body ends within the prefix of a message: got %d of %d bytes", f.have, len(f.prefix))
		case err != nil && f.have < len(f.prefix):
			return err
		}
	}
	return b.checkPrefix()
}
