package transport

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// The frames of HTTP/2 and their flags (RFC 9113, section 6), as far as the budget
// tells them apart.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9

	flagAck        = 0x1 // of SETTINGS and PING
	flagEndStream  = 0x1 // of DATA and HEADERS
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	frameHeaderLen = 9
)

const (
	// shortData is the most that DATA may hold and count as empty. The prefix of a
	// message alone, which several clients send by itself, has five bytes.
	shortData = 4
	// shortPadded is the same for padded frames, whose data cannot be told from their
	// padding by the header.
	shortPadded = 257
	// shortContinuation is below what a client sends that splits a header since it
	// must.
	shortContinuation = 1 << 10
	// windowsPerData is how often a client may open windows for each DATA frame that
	// it is sent: that of the stream and that of the connection, and again.
	windowsPerData = 4
	// pingStrikes is how many pings may come too early, as gRPC servers have it.
	pingStrikes = 2
	// burstSeconds is how many seconds' worth of frames may come at once.
	burstSeconds = 10
	// lateFrames is how much DATA of closed streams may come at once at least: as much
	// as the window of a connection, which is a megabyte, holds of items with two
	// frames each. It is what may be on its way when a stream is answered early.
	lateFrames = 1 << 15
)

// Cause says which budget a connection has overdrawn.
type Cause string

// The causes.
const (
	CausePings         Cause = "pings"
	CauseSettings      Cause = "settings"
	CauseResets        Cause = "resets"
	CauseContinuations Cause = "continuations"
	CauseWindows       Cause = "window_updates"
	CauseEmptyData     Cause = "empty_data"
	CauseLateData      Cause = "late_data"
	CauseOther         Cause = "other_frames"
)

// Causes are all causes, for those who count by them.
func Causes() []Cause {
	return []Cause{
		CausePings, CauseSettings, CauseResets, CauseContinuations, CauseWindows, CauseEmptyData, CauseLateData, CauseOther,
	}
}

// FrameLimits bound what one HTTP/2 connection may send that is cheap to send, has to
// be looked at all the same, and moves no call on. What the calls themselves give
// reason for is not counted: an opened window for what was sent, the reset of a stream
// that was answered, a ping after an answer.
type FrameLimits struct {
	// PerSecond is how many frames of each kind may come; ten times as many at once.
	// Of SETTINGS it is a tenth. 0: they are not counted.
	PerSecond int
	// Resets is how many streams may be reset at once at least.
	Resets int
	// PingEvery is the least that a client may wait between two pings if it was sent
	// nothing in between. 0: pings are counted as other frames are.
	PingEvery time.Duration
}

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

// The buckets of a connection, one for each cause.
const (
	bucketPings = iota
	bucketSettings
	bucketResets
	bucketContinuations
	bucketWindows
	bucketEmptyData
	bucketLateData
	bucketOther

	buckets
)

// frameBudget is what one connection may still send. The reading goroutine spends, the
// writing ones tell what was sent to the client; it allocates nothing.
type frameBudget struct {
	limits FrameLimits
	born   time.Time

	in      frameScan
	now     int64          // after born; 0: the clock was not asked yet
	fullAt  [buckets]int64 // when each bucket is full again, after born
	strikes int
	pinged  int64 // when, after born; 0: never
	seen    int64 // frames that had been sent at the last ping

	usedResets, usedWindows   int64 // that answers gave reason for
	freeData, freeHeaderParts int64 // short ones that requests give reason for
	chargedResets             int64 // of those that the server sent
	opened                    int64 // streams for which no reset was sent or called for yet

	out                               frameScan                // the writers', under the connection's lock
	watched                           map[uint32]*atomic.Int64 // DATA sent on these streams; under the same lock
	headersSent, dataSent, resetsSent atomic.Int64
}

// newFrameBudget returns the budget of a connection of which some bytes have been read.
func newFrameBudget(limits FrameLimits, read int) *frameBudget {
	b := &frameBudget{limits: limits, born: time.Now()}
	b.in.skip = uint32(len(fullPreface) - read)
	return b
}

// received notes what has come in, and says what there was too much of; empty: nothing.
func (b *frameBudget) received(p []byte) Cause {
	b.now = 0
	for {
		h, rest, ok := b.in.next(p)
		if !ok {
			return ""
		}
		if cause := b.spend(h); cause != "" {
			return cause
		}
		p = rest
	}
}

func (b *frameBudget) spend(h frameHead) Cause {
	switch h.kind {
	case frameData:
		if brings(h) {
			// connect-go sends a message's prefix by itself: a short message follows.
			b.freeData = max(b.freeData, 1)
			return b.chargeSentResets()
		}
		if take(&b.freeData) {
			return ""
		}
		return b.charge(bucketEmptyData, 1)
	case frameHeaders:
		b.opened++
		b.freeData++
		if b.freeHeaderParts = 1; h.has(flagEndHeaders) {
			b.freeHeaderParts = 0
		}
		return b.chargeSentResets()
	case frameContinuation:
		if h.length >= shortContinuation || take(&b.freeHeaderParts) {
			return ""
		}
		return b.charge(bucketContinuations, 1)
	case frameReset:
		if b.usedResets < b.headersSent.Load() {
			b.usedResets++
			return ""
		}
		return b.charge(bucketResets, 1)
	case frameWindow:
		return b.window()
	case framePing:
		if !h.has(flagAck) {
			return b.ping()
		}
	case frameSettings:
		if !h.has(flagAck) {
			return b.charge(bucketSettings, 1)
		}
	}
	return b.charge(bucketOther, 1)
}

// brings reports whether a frame of DATA has any to speak of, or ends its stream.
func brings(h frameHead) bool {
	least := uint32(shortData)
	if h.has(flagPadded) {
		least = shortPadded
	}
	return h.has(flagEndStream) || h.length > least
}

func (b *frameBudget) window() Cause {
	if b.usedWindows < windowsPerData*b.dataSent.Load() {
		b.usedWindows++
		return ""
	}
	if cause := b.charge(bucketWindows, 1); cause != "" {
		return cause
	}
	return b.chargeSentResets() // a bad one makes the server reset the stream
}

func take(free *int64) bool {
	if *free == 0 {
		return false
	}
	*free--
	return true
}

// ping judges as gRPC servers do: who was sent something since the last ping may ping,
// since clients measure their lines that way; who was not has to wait.
func (b *frameBudget) ping() Cause {
	sent := b.headersSent.Load() + b.dataSent.Load()
	fresh := sent != b.seen
	b.seen = sent
	last := b.pinged
	b.pinged = b.clock()
	switch {
	case fresh:
		b.strikes = 0
		return ""
	case b.limits.PingEvery <= 0:
		return b.charge(bucketPings, 1)
	case last > 0 && b.pinged-last < int64(b.limits.PingEvery):
		b.strikes++
	}
	if b.strikes > pingStrikes {
		return CausePings
	}
	return ""
}

// chargeSentResets charges the client for streams that the server had to reset, since
// a client can bring that about as well as reset them itself. Those that were answered
// are free either way. A stream is reset for its own sake once; whatever is beyond that
// came of DATA for streams that were closed, each of which the server resets again.
func (b *frameBudget) chargeSentResets() Cause {
	sent := b.resetsSent.Load()
	n := sent - b.chargedResets
	if n <= 0 {
		return ""
	}
	b.chargedResets = sent
	free := min(n, max(b.headersSent.Load()-b.usedResets, 0))
	b.usedResets += free
	b.opened = max(b.opened-free, 0)
	own := min(n-free, b.opened)
	b.opened -= own
	if cause := b.charge(bucketResets, own); cause != "" {
		return cause
	}
	return b.charge(bucketLateData, n-free-own)
}

// charge takes frames from a bucket. The bucket is kept as the time when it is full
// again.
func (b *frameBudget) charge(bucket int, frames int64) Cause {
	rate := b.limits.PerSecond
	if rate <= 0 || frames == 0 {
		return ""
	}
	burst := int64(rate * burstSeconds)
	switch bucket {
	case bucketSettings:
		rate = max(rate/10, 1)
		burst = int64(rate * burstSeconds)
	case bucketResets:
		burst = max(burst, int64(b.limits.Resets))
	case bucketLateData:
		burst = max(burst, lateFrames)
	}
	each := int64(time.Second) / int64(rate)
	now := b.clock()
	full := max(b.fullAt[bucket], now) + frames*each
	b.fullAt[bucket] = full
	if full-now > burst*each {
		return Causes()[bucket]
	}
	return ""
}

// clock asks for the time once in each portion that was read.
func (b *frameBudget) clock() int64 {
	if b.now == 0 {
		b.now = int64(time.Since(b.born)) + 1
	}
	return b.now
}

// sent notes what goes out. It is called with the connection's lock.
func (b *frameBudget) sent(p []byte) {
	for {
		h, rest, ok := b.out.next(p)
		if !ok {
			return
		}
		switch h.kind {
		case frameHeaders:
			b.headersSent.Add(1)
		case frameData:
			b.dataSent.Add(1)
			if taken := b.watched[h.stream]; taken != nil && h.length > 0 {
				taken.Add(1)
			}
		case frameReset:
			b.resetsSent.Add(1)
		}
		p = rest
	}
}

// farewell returns the frame that tells a client why its connection ends.
func farewell(cause Cause) []byte {
	const enhanceYourCalm = 0xb
	text := "too_many_" + string(cause)
	frame := make([]byte, 0, frameHeaderLen+8+len(text))
	frame = append(frame, 0, 0, byte(8+len(text)), frameGoAway, 0, 0, 0, 0, 0)
	// The last stream that was handled is not known here: the highest says that any
	// may have been.
	frame = binary.BigEndian.AppendUint32(frame, 1<<31-1)
	frame = binary.BigEndian.AppendUint32(frame, enhanceYourCalm)
	return append(frame, text...)
}
