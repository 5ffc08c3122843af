package transport

import (
	"encoding/binary"
	"sync"
)

// initialWindow is the flow-control window of a connection, and of a stream unless the peer
// announces another one (RFC 9113, section 6.9.2).
const initialWindow = 1<<16 - 1

// settingInitialWindow is the identifier of SETTINGS_INITIAL_WINDOW_SIZE.
const settingInitialWindow = 0x4

// sendWindows are the flow-control windows that a peer has opened for what the server
// sends on one HTTP/2 connection. They let a stream wait for room for a whole message
// before it hands any of it to net/http: the message that a reader stalls at is then either
// sent or not sent, and trailers can follow. net/http has no way to take back a part.
//
// They are safe for use by many goroutines; payload is for the one that reads.
type sendWindows struct {
	// Of the frame that is being read.
	kind   byte
	stream uint32
	left   uint32
	entry  [6]byte
	have   int

	mu       sync.Mutex
	initial  int64
	conn     int64 // of the connection, less what was sent
	reserved int64 // of it, for messages that were not sent
	largest  uint32
	streams  map[uint32]*sendWindow // those that the server may send on
}

// sendWindow is that of one stream.
type sendWindow struct {
	credit   int64         // beyond the initial window, less what was sent
	reserved int64         // for messages that were not sent
	grants   int64         // how often the peer opened it
	wake     chan struct{} // closed when there may be room; nil: nobody waits
	retry    bool          // the stream is to be reset with a code that clients retry
}

func newSendWindows() *sendWindows {
	return &sendWindows{initial: initialWindow, conn: initialWindow, streams: make(map[uint32]*sendWindow)}
}

// frame records the header of a frame that was received.
func (w *sendWindows) frame(h frameHead) {
	w.kind, w.stream, w.left, w.have = h.kind, h.stream, h.length, 0
	switch h.kind {
	case frameHeaders:
		w.mu.Lock()
		if h.stream > w.largest {
			w.largest, w.streams[h.stream] = h.stream, new(sendWindow)
		}
		w.mu.Unlock()
	case frameReset:
		w.close(h.stream)
	case frameSettings:
		if h.has(flagAck) {
			w.kind = framePing // whose payload does not matter
		}
	}
}

// payload records what was received behind the header of the present frame.
func (w *sendWindows) payload(p []byte) {
	n := min(int(w.left), len(p))
	w.left -= uint32(n)
	size := 4
	switch w.kind {
	case frameSettings:
		size = 6
	case frameWindow:
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

// sent records the header of a frame that is being sent. It reports whether the frame is
// an RST_STREAM whose code is to be replaced.
func (w *sendWindows) sent(h frameHead) (retry bool) {
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
	case frameReset:
		return w.close(h.stream)
	}
	return false
}

func (w *sendWindows) data(h frameHead) {
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
	return s.retry
}

// reserve reserves room for n bytes on a stream. Where there is none yet it returns a
// channel that is closed when there may be. It does not wait for more than half of a
// window: a client may open its window only when half of it was consumed.
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

// grants is the number of times that the peer has opened the window of a stream.
func (w *sendWindows) grants(stream uint32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.streams[stream]; s != nil {
		return s.grants
	}
	return 0
}

// retriable lets the server reset a stream with REFUSED_STREAM in place of
// INTERNAL_ERROR.
func (w *sendWindows) retriable(stream uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.streams[stream]; s != nil {
		s.retry = true
	}
}
