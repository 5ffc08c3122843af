package transport

import "encoding/binary"

// HTTP/2 frame types and flags (RFC 9113, section 6) that the frame budget distinguishes.
const (
	frameData           = 0x0
	frameHeaders        = 0x1
	framePriority       = 0x2
	frameRSTStream      = 0x3
	frameSettings       = 0x4
	framePing           = 0x6
	frameGoAway         = 0x7
	frameWindowUpdate   = 0x8
	frameContinuation   = 0x9
	framePriorityUpdate = 0x10 // RFC 9218

	flagAck        = 0x1 // SETTINGS and PING
	flagEndStream  = 0x1 // DATA and HEADERS
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	frameHeaderLen = 9
)

// frameScanner finds frame headers in a byte stream with arbitrary read boundaries.
type frameScanner struct {
	skip uint32 // bytes before the next header
	have uint8  // bytes of the next header in head
	head [frameHeaderLen]byte
}

type frameHeader struct {
	length      uint32
	kind, flags byte
	stream      uint32
}

func (h frameHeader) has(flag byte) bool { return h.flags&flag != 0 }

// next returns the next frame header in p, and the bytes after it. ok is false at the end of p.
func (s *frameScanner) next(p []byte) (h frameHeader, rest []byte, ok bool) {
	if s.skip > 0 {
		n := min(int(s.skip), len(p))
		s.skip -= uint32(n)
		p = p[n:]
	}
	if len(p) == 0 {
		return h, nil, false
	}
	head := p
	if s.have == 0 && len(p) >= frameHeaderLen {
		p = p[frameHeaderLen:]
	} else {
		n := copy(s.head[s.have:], p)
		s.have += uint8(n)
		if s.have < frameHeaderLen {
			return h, nil, false
		}
		s.have, head, p = 0, s.head[:], p[n:]
	}
	first := binary.BigEndian.Uint32(head)
	s.skip = first >> 8
	return frameHeader{
		length: first >> 8, kind: byte(first), flags: head[4], stream: binary.BigEndian.Uint32(head[5:]) &^ (1 << 31),
	}, p, true
}

// atBoundary reports whether the next byte starts a frame.
func (s *frameScanner) atBoundary() bool { return s.skip == 0 && s.have == 0 }
