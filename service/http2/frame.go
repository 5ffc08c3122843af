package http2

import (
	"encoding/binary"
	"fmt"
)

// frameKind is a frame type (RFC 9113, section 6).
type frameKind uint8

const (
	frameData           frameKind = 0x0
	frameHeaders        frameKind = 0x1
	framePriority       frameKind = 0x2
	frameRSTStream      frameKind = 0x3
	frameSettings       frameKind = 0x4
	framePushPromise    frameKind = 0x5
	framePing           frameKind = 0x6
	frameGoAway         frameKind = 0x7
	frameWindowUpdate   frameKind = 0x8
	frameContinuation   frameKind = 0x9
	framePriorityUpdate frameKind = 0x10 // RFC 9218
)

const (
	flagAck        = 0x1 // SETTINGS and PING
	flagEndStream  = 0x1 // DATA and HEADERS
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	frameHeaderLen = 9
	// minMaxFrame and maxMaxFrame are the limits of SETTINGS_MAX_FRAME_SIZE.
	minMaxFrame = 1 << 14
	maxMaxFrame = 1<<24 - 1
	maxWindow   = 1<<31 - 1
	maxStreamID = 1<<31 - 1
)

// clientPreface starts a connection (section 3.4).
const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frameHeader is the header of a frame (section 4.1).
type frameHeader struct {
	length uint32
	kind   frameKind
	flags  uint8
	stream uint32
}

func parseFrameHeader(p []byte) frameHeader {
	first := binary.BigEndian.Uint32(p)
	return frameHeader{
		length: first >> 8, kind: frameKind(first), flags: p[4],
		stream: binary.BigEndian.Uint32(p[5:]) &^ (1 << 31),
	}
}

func (h frameHeader) has(flag uint8) bool { return h.flags&flag != 0 }

func appendFrameHeader(b []byte, length int, kind frameKind, flags uint8, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// unpad removes the padding of DATA and HEADERS (section 6.1).
func unpad(h frameHeader, p []byte) ([]byte, error) {
	if !h.has(flagPadded) {
		return p, nil
	}
	if len(p) == 0 {
		return nil, connError{errFrameSize, "padded frame without pad length"}
	}
	pad := int(p[0])
	if p = p[1:]; pad > len(p) {
		return nil, connError{errProtocol, "padding exceeds the payload"}
	}
	return p[:len(p)-pad], nil
}

// ErrCode is an error code of RST_STREAM and GOAWAY (section 7).
type ErrCode uint32

const (
	errNo              ErrCode = 0x0
	errProtocol        ErrCode = 0x1
	errInternal        ErrCode = 0x2
	errFlowControl     ErrCode = 0x3
	errStreamClosed    ErrCode = 0x5
	errFrameSize       ErrCode = 0x6
	errRefusedStream   ErrCode = 0x7
	errCancel          ErrCode = 0x8
	errCompression     ErrCode = 0x9
	errEnhanceYourCalm ErrCode = 0xb
	errInadequateTLS   ErrCode = 0xc // INADEQUATE_SECURITY
)

// connError is a connection error (section 5.4.1).
type connError struct {
	code   ErrCode
	reason string
}

func (e connError) Error() string {
	return fmt.Sprintf("http2: connection error %#x: %s", uint32(e.code), e.reason)
}

// streamError is a stream error (section 5.4.2).
type streamError struct {
	stream uint32
	code   ErrCode
	reason string
}

func (e streamError) Error() string {
	return fmt.Sprintf("http2: stream %d error %#x: %s", e.stream, uint32(e.code), e.reason)
}
