package transport

import (
	"encoding/binary"
	"sync"
)

// initialWindow is the default flow-control window of a connection and of a stream (RFC 9113,
// section 6.9.2).
const initialWindow = 1<<16 - 1

// settingInitialWindow is the id of SETTINGS_INITIAL_WINDOW_SIZE.
const settingInitialWindow = 0x4

// sendWindows tracks the flow-control windows granted by the client of an HTTP/2 connection. A
// stream reserves window for a whole message before it passes it to net/http, so a stalled message
// is not sent at all, and trailers can follow. net/http cannot take back a partial message.
//
// It is safe for concurrent use, except payload, which is for the reading goroutine.
type sendWindows struct {
	// State of the frame that is being read.
	kind   byte
	stream uint32
	left   uint32
	entry  [6]byte
	have   int

	mu       sync.Mutex
	initial  int64
	conn     int64 // window of the connection, less the bytes sent
	reserved int64 // part of conn reserved for unsent messages
	largest  uint32
	streams  map[uint32]*sendWindow // open streams
}

// sendWindow is the window of a stream.
type sendWindow struct {
	credit   int64         // beyond the initial window, less the bytes sent
	reserved int64         // reserved for unsent messages
	grants   int64         // number of WINDOW_UPDATE frames
	wake     chan struct{} // closed when the window may have grown; nil: no waiter
	refuse   bool          // reset the stream with REFUSED_STREAM
}

func newSendWindows() *sendWindows {
	return &sendWindows{initial: initialWindow, conn: initialWindow, streams: make(map[uint32]*sendWindow)}
}

// frame records the header of a received frame.
func (w *sendWindows) frame(h frameHeader) {
	w.kind, w.stream, w.left, w.have = h.kind, h.stream, h.length, 0
	switch h.kind {
	case frameHeaders:
		w.mu.Lock()
		if h.stream > w.largest {
			w.largest, w.streams[h.stream] = h.stream, new(sendWindow)
		}
		w.mu.Unlock()
	case frameRSTStream:
		w.close(h.stream)
	case frameSettings:
		if h.has(flagAck) {
			w.kind = framePing // its payload is ignored
		}
	}
}

// payload records received bytes of the current frame's payload.
func (w *sendWindows) payload(p []byte) {
	n := min(int(w.left), len(p))
	w.left -= uint32(n)
	size := 4
	switch w.kind {
	case frameSettings:
		size = 6
	case frameWindowUpdate:
	default:
		return
	}
	for _, b := range p[:n] {
		w.entry[w.have] = b
		if w.have++; w.have == size {
			w.have = 0
			w.apply()
		}
	}
}

func (w *sendWindows) apply() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.kind == frameSettings:
		if binary.BigEndian.Uint16(w.entry[:]) == settingInitialWindow {
			w.initial = int64(binary.BigEndian.Uint32(w.entry[2:]))
			w.wakeAll()
		}
	case w.stream == 0:
		w.conn += int64(binary.BigEndian.Uint32(w.entry[:]))
		w.wakeAll()
	default:
		if s := w.streams[w.stream]; s != nil {
			s.credit += int64(binary.BigEndian.Uint32(w.entry[:]))
			s.grants++
			s.wakeUp()
		}
	}
}

func (w *sendWindows) wakeAll() {
	for _, s := range w.streams {
		s.wakeUp()
	}
}

func (s *sendWindow) wakeUp() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// sent records the header of a sent frame. It reports whether the frame is an RST_STREAM whose
// error code must be replaced.
func (w *sendWindows) sent(h frameHeader) (retry bool) {
	switch h.kind {
	case frameData:
		w.data(h)
		if h.has(flagEndStream) {
			w.close(h.stream)
		}
	case frameHeaders:
		if h.has(flagEndStream) {
			w.close(h.stream)
		}
	case frameRSTStream:
		return w.close(h.stream)
	}
	return false
}

func (w *sendWindows) data(h frameHeader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn -= int64(h.length)
	if s := w.streams[h.stream]; s != nil {
		s.credit -= int64(h.length)
		used := min(s.reserved, int64(h.length))
		s.reserved -= used
		w.reserved -= used
	}
}

func (w *sendWindows) close(stream uint32) (retry bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.streams[stream]
	if s == nil {
		return false
	}
	delete(w.streams, stream)
	w.reserved -= s.reserved
	s.wakeUp()
	return s.refuse
}

// reserve reserves n bytes of the window of a stream. If the window is too small, it returns a
// channel that is closed when the window may have grown. It does not wait for more than half of the
// initial window, because clients may update a window only after half of it was consumed.
func (w *sendWindows) reserve(stream uint32, n int64) (wake <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.streams[stream]
	if s == nil || n > min(w.initial, initialWindow)/2 {
		return nil
	}
	if w.initial+s.credit-s.reserved >= n && w.conn-w.reserved >= n {
		s.reserved += n
		w.reserved += n
		return nil
	}
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// grants returns the number of WINDOW_UPDATE frames of a stream.
func (w *sendWindows) grants(stream uint32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.streams[stream]; s != nil {
		return s.grants
	}
	return 0
}

// refuseOnReset makes a reset of the stream use REFUSED_STREAM in place of INTERNAL_ERROR.
func (w *sendWindows) refuseOnReset(stream uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.streams[stream]; s != nil {
		s.refuse = true
	}
}
