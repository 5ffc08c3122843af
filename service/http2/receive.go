package http2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// readFrames handles frames until the connection ends. It returns why.
func (c *conn) readFrames() error {
	for {
		h, payload, ok, err := c.in.buffered()
		if err != nil {
			return err
		}
		if !ok {
			if err := c.startPending(); err != nil {
				return err
			}
			if err := c.read(); err != nil {
				return err
			}
			continue
		}
		if reason := c.budget.charge(h, payload); reason != "" {
			return c.exceeded(reason)
		}
		err = c.frame(h, payload)
		if e, ok := err.(streamError); ok { //nolint:errorlint // frame does not wrap it
			err = c.streamFailed(e)
		}
		if err != nil {
			return err
		}
	}
}

// read reads more input. An incomplete header block starts the header timeout.
func (c *conn) read() error {
	if c.headerIncomplete() && c.headerSince.CompareAndSwap(0, int64(c.srv.now())) {
		c.mu.Lock()
		c.arm(c.srv.headerTimeout)
		c.mu.Unlock()
	}
	if c.received {
		c.received = false
		if err := c.hooks.Meter.Admit(); err != nil {
			return metered(err)
		}
	}
	if err := c.in.fit(c.hooks.Meter); err != nil {
		return metered(err)
	}
	err := c.in.fill()
	c.lastRead.Store(int64(c.srv.now()))
	return err
}

// headerIncomplete reports whether a header block, or the first SETTINGS, is incomplete.
func (c *conn) headerIncomplete() bool {
	if c.block.stream != 0 || !c.sawSettings {
		return true
	}
	in := &c.in
	if in.end-in.start < frameHeaderLen {
		return false
	}
	kind := parseFrameHeader((*in.buf)[in.start:]).kind
	return kind == frameHeaders || kind == frameContinuation
}

// frame handles one frame (section 6).
func (c *conn) frame(h frameHeader, p []byte) error {
	switch {
	case !c.sawSettings:
		if h.kind != frameSettings || h.has(flagAck) {
			return connError{errProtocol, "the first frame must be SETTINGS"}
		}
		c.sawSettings = true
		c.headerSince.Store(0)
	case c.block.stream != 0 && (h.kind != frameContinuation || h.stream != c.block.stream):
		return connError{errProtocol, "expected CONTINUATION"}
	}
	switch h.kind {
	case frameHeaders:
		return c.headers(h, p)
	case frameContinuation:
		return c.continuation(h, p)
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch h.kind {
	case frameData:
		return c.data(h, p)
	case framePriority:
		return c.priority(h, p)
	case frameRSTStream:
		return c.rstStream(h, p)
	case frameSettings:
		return c.settings(h, p)
	case framePushPromise:
		return connError{errProtocol, "PUSH_PROMISE from a client"}
	case framePing:
		return c.ping(h, p)
	case frameGoAway:
		return c.goAwayReceived(h, p)
	case frameWindowUpdate:
		return c.windowUpdate(h, p)
	default:
		return nil // unknown types are ignored (section 5.5)
	}
}

// headers handles HEADERS (section 6.2).
func (c *conn) headers(h frameHeader, p []byte) error {
	if h.stream%2 == 0 {
		return connError{errProtocol, "HEADERS on a stream that is not the client's"}
	}
	p, err := unpad(h, p)
	if err != nil {
		return err
	}
	selfDep := false
	if h.has(flagPriority) {
		const priorityLen = 5
		if len(p) < priorityLen {
			return connError{errFrameSize, "HEADERS too short for its priority"}
		}
		selfDep = binary.BigEndian.Uint32(p)&^(1<<31) == h.stream
		p = p[priorityLen:]
	}
	c.block.begin(h.stream, h.has(flagEndStream))
	c.block.selfDep = selfDep
	return c.decode(h, p)
}

// continuation handles CONTINUATION (section 6.10).
func (c *conn) continuation(h frameHeader, p []byte) error {
	if c.block.stream == 0 {
		return connError{errProtocol, "unexpected CONTINUATION"}
	}
	return c.decode(h, p)
}

func (c *conn) decode(h frameHeader, p []byte) error {
	if err := c.fragment(p); err != nil {
		return err
	}
	if !h.has(flagEndHeaders) {
		return metered(c.hooks.Meter.Header(c.block.encoded))
	}
	c.headerSince.Store(0)
	if err := c.hooks.Meter.Header(0); err != nil {
		return metered(err)
	}
	return c.endBlock()
}

// isIdle reports whether a stream was never opened. c.mu is held.
func (c *conn) isIdle(stream uint32) bool { return stream%2 == 0 || stream > c.maxStream }

// priority handles PRIORITY, which is checked and ignored (section 6.3). The errors are those of the
// connection, so that a client cannot provoke resets with it.
func (c *conn) priority(h frameHeader, p []byte) error {
	switch {
	case h.stream == 0:
		return connError{errProtocol, "PRIORITY without a stream"}
	case len(p) != 5:
		return connError{errFrameSize, "PRIORITY must have 5 bytes"}
	case binary.BigEndian.Uint32(p)&^(1<<31) == h.stream:
		return connError{errProtocol, "stream depends on itself"}
	}
	return nil
}

// rstStream handles RST_STREAM (section 6.4). c.mu is held.
func (c *conn) rstStream(h frameHeader, p []byte) error {
	switch {
	case len(p) != 4:
		return connError{errFrameSize, "RST_STREAM must have 4 bytes"}
	case h.stream == 0 || c.isIdle(h.stream):
		return connError{errProtocol, "RST_STREAM on an idle stream"}
	}
	if st := c.streams[h.stream]; st != nil {
		c.closeStream(st, errReset, closedNormally)
	}
	return nil
}

// ping handles PING (section 6.7). c.mu is held.
func (c *conn) ping(h frameHeader, p []byte) error {
	switch {
	case len(p) != 8:
		return connError{errFrameSize, "PING must have 8 bytes"}
	case h.stream != 0:
		return connError{errProtocol, "PING on a stream"}
	case h.has(flagAck):
		if c.pingSent != 0 && slices.Equal(p, pingData[:]) {
			c.pingSent = 0
		}
		if c.goAwayPing && slices.Equal(p, goAwayPingData[:]) {
			c.finalGoAway()
		}
		return nil
	}
	c.appendPing(flagAck, p)
	c.kick()
	return c.awaitControl()
}

// appendPing queues a PING. c.mu is held.
func (c *conn) appendPing(flags uint8, data []byte) {
	c.out = append(appendFrameHeader(c.output(), len(data), framePing, flags, 0), data...)
	c.control += frameHeaderLen + len(data)
}

// appendReset queues RST_STREAM. c.mu is held.
func (c *conn) appendReset(stream uint32, code ErrCode) {
	c.out = binary.BigEndian.AppendUint32(appendFrameHeader(c.output(), 4, frameRSTStream, 0, stream), uint32(code))
	c.control += frameHeaderLen + 4
	c.budget.resetsSent.Add(1)
}

// awaitControl blocks the reading goroutine while too many control frames are queued. c.mu is held.
func (c *conn) awaitControl() error {
	for c.control > maxControl && !c.ended {
		c.changed.Wait()
	}
	if c.ended {
		return errConnClosed
	}
	return nil
}

// limitError is a connection error for an exceeded limit.
type limitError struct{ reason CloseReason }

func (e limitError) Error() string { return "http2: limit exceeded: " + string(e.reason) }

func (c *conn) exceeded(reason CloseReason) error { return limitError{reason} }

// metered returns the error of a connection without memory.
func metered(err error) error {
	if err != nil {
		return limitError{CloseMemory}
	}
	return nil
}

// readPreface reads the client preface (section 3.4).
func (c *conn) readPreface() error {
	preface := make([]byte, len(clientPreface))
	if _, err := io.ReadFull(c.net, preface); err != nil {
		return fmt.Errorf("read preface: %w", err)
	}
	if string(preface) != clientPreface {
		return errNoPreface
	}
	return nil
}

var errNoPreface = errors.New("http2: invalid client preface")
