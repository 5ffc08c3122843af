package transport

import "encoding/binary"

// The frames of HTTP/2 and their flags (RFC 9113, section 6), as far as the budget
// tells them apart.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9
	framePriorityNew  = 0x10 // PRIORITY_UPDATE (RFC 9218)

	flagAck        = 0x1 // of SETTINGS and PING
	flagEndStream  = 0x1 // of DATA and HEADERS
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	frameHeaderLen = 9
)

// frameScan finds the headers of frames in a flow of bytes, however it is cut.
type frameScan struct {
	skip uint32 // bytes up to the next header
	have uint8  // of it
	head [frameHeaderLen]byte
}

type frameHead struct {
	length      uint32
	kind, flags byte
	stream      uint32
}

func (h frameHead) has(flag byte) bool { return h.flags&flag != 0 }

// next gives the next header in p, and what is behind it. ok is false if p ends first.
func (s *frameScan) next(p []byte) (h frameHead, rest []byte, ok bool) {
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
	return frameHead{
		length: first >> 8, kind: byte(first), flags: head[4], stream: binary.BigEndian.Uint32(head[5:]) &^ (1 << 31),
	}, p, true
}

// between reports whether the next byte begins a frame.
func (s *frameScan) between() bool { return s.skip == 0 && s.have == 0 }
