package transport

import (
	"encoding/binary"
	"sync/atomic"
	"time"
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
	// windowsPerFrame is the number of WINDOW_UPDATE frames that each DATA frame sent to
	// the client and each stream opened by it earn: one for the stream and one for the
	// connection, twice. gRPC C-core sends both for every call, also where the response
	// has no DATA.
	windowsPerFrame = 4
	// prioritiesPerStream is the number of PRIORITY and PRIORITY_UPDATE frames that each
	// stream opened earns. Browsers send one or two a request.
	prioritiesPerStream = 2
	// maxEarned caps the frames of one kind that are earned and not yet sent, so that a
	// long-lived connection does not collect the right to a flood.
	maxEarned = 1 << 14
	// pingBurst is the number of pings that may come at once: one in time and two early
	// ones, the two strikes of gRPC servers.
	pingBurst = 3
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

	// CauseMemory and CauseHeaderTimeout are not budgets of frames: there is no memory for
	// the connection, or its header block does not end.
	CauseMemory        Cause = "memory"
	CauseHeaderTimeout Cause = "header_timeout"
)

// Causes are all causes, for those who count by them.
func Causes() []Cause {
	return []Cause{
		CausePings, CauseSettings, CauseResets, CauseContinuations, CauseWindows, CauseEmptyData, CauseLateData, CauseOther,
		CauseMemory, CauseHeaderTimeout,
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

	in         frameScan
	now        int64          // after born; 0: the clock was not asked yet
	fullAt     [buckets]int64 // when each bucket is full again, after born
	memory     *connMemory    // told of all frames; nil: of none
	short      error          // the memory has no room for what was received
	maxStreams int32
	seen       int64 // frames that had been sent at the last ping

	streams                   int64 // opened by the client
	usedResets, usedWindows   int64 // of those that were earned
	usedPriorities            int64 // of those that were earned
	freeSettings              bool  // a ping has earned one
	freeData, freeHeaderParts int64 // short ones that requests give reason for
	chargedResets             int64 // of those that the server sent
	opened                    int64 // streams for which no reset was sent or called for yet

	windows *sendWindows

	out                               frameScan                // the writers', under the connection's lock
	replace                           int                      // bytes of an error code that are to be replaced; under the same lock
	watched                           map[uint32]*atomic.Int64 // DATA sent on these streams; under the same lock
	headersSent, dataSent, resetsSent atomic.Int64
}

// newFrameBudget returns the budget of a connection of which some bytes have been read.
func newFrameBudget(limits FrameLimits, read int) *frameBudget {
	b := &frameBudget{limits: limits, born: time.Now(), windows: newSendWindows()}
	b.in.skip = uint32(len(fullPreface) - read)
	return b
}

// received notes what has come in, and says what there was too much of; empty: nothing.
func (b *frameBudget) received(p []byte) Cause {
	b.now = 0
	b.windows.payload(p)
	for {
		h, rest, ok := b.in.next(p)
		if !ok {
			return ""
		}
		b.windows.frame(h)
		b.windows.payload(rest)
		if b.memory != nil {
			if err := b.memory.frame(h, b.maxStreams); err != nil {
				b.short = err
			}
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
		b.streams++
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
		if spend(&b.usedResets, b.headersSent.Load(), b.maxFreeResets()) {
			return ""
		}
		return b.charge(bucketResets, 1)
	case frameWindow:
		return b.window()
	case framePriority, framePriorityNew:
		if spend(&b.usedPriorities, prioritiesPerStream*b.streams, maxEarned) {
			return ""
		}
	case framePing:
		if !h.has(flagAck) {
			return b.ping()
		}
	case frameSettings:
		if !h.has(flagAck) {
			return b.settings()
		}
	}
	return b.charge(bucketOther, 1)
}

// spend uses one of the earned frames, of which most are kept. It reports false if there
// is none.
func spend(used *int64, earned, most int64) bool {
	*used = max(*used, earned-most)
	if *used >= earned {
		return false
	}
	*used++
	return true
}

// maxFreeResets is the number of earned resets that are kept. Every stream that is open
// can be reset at once; more would be the right to a rapid reset.
func (b *frameBudget) maxFreeResets() int64 {
	return max(int64(b.limits.Resets), int64(b.limits.PerSecond*burstSeconds))
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
	if spend(&b.usedWindows, windowsPerFrame*(b.dataSent.Load()+b.streams), maxEarned) {
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

// settings charges a SETTINGS frame. gRPC clients that estimate the bandwidth send one
// when a ping has told them a new estimate.
func (b *frameBudget) settings() Cause {
	if b.freeSettings {
		b.freeSettings = false
		return ""
	}
	return b.charge(bucketSettings, 1)
}

// ping charges a PING frame. A ping is free when a HEADERS or DATA frame was sent since
// the one before, since clients measure the round trip that way. The rest may come every
// PingEvery on average: single early ones do not add up, because timers and networks
// jitter.
func (b *frameBudget) ping() Cause {
	sent := b.headersSent.Load() + b.dataSent.Load()
	fresh := sent != b.seen
	b.seen = sent
	if fresh {
		if b.freeSettings = true; b.limits.PingEvery > 0 {
			b.fullAt[bucketPings] = 0 // no more strikes
		}
		return ""
	}
	return b.charge(bucketPings, 1)
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
	headers := b.headersSent.Load()
	b.usedResets = max(b.usedResets, headers-b.maxFreeResets())
	free := min(n, max(headers-b.usedResets, 0))
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
	each, burst := b.rate(bucket)
	if each <= 0 || frames == 0 {
		return ""
	}
	now := b.clock()
	full := max(b.fullAt[bucket], now) + frames*each
	b.fullAt[bucket] = full
	if full-now > burst*each {
		return Causes()[bucket]
	}
	return ""
}

// rate is the time that a frame of a bucket costs, and the number of frames that may come
// at once. A cost of 0 means no limit.
func (b *frameBudget) rate(bucket int) (each, burst int64) {
	if bucket == bucketPings && b.limits.PingEvery > 0 {
		// A tenth less, so that clocks of different speed do not add up either.
		return int64(b.limits.PingEvery / 10 * 9), pingBurst
	}
	rate := int64(b.limits.PerSecond)
	if rate <= 0 {
		return 0, 0
	}
	if bucket == bucketSettings {
		rate = max(rate/10, 1)
	}
	burst = rate * burstSeconds
	switch bucket {
	case bucketResets:
		burst = max(burst, int64(b.limits.Resets))
	case bucketLateData:
		burst = max(burst, lateFrames)
	}
	return int64(time.Second) / rate, burst
}

// clock asks for the time once in each portion that was read.
func (b *frameBudget) clock() int64 {
	if b.now == 0 {
		b.now = int64(time.Since(b.born)) + 1
	}
	return b.now
}

// sent records what is sent, and replaces the error code of a stream that clients are to
// retry. It is called with the connection's lock.
func (b *frameBudget) sent(p []byte) {
	b.replaceCode(p)
	if b.memory != nil {
		b.memory.sent(frameHead{}, p)
	}
	for {
		h, rest, ok := b.out.next(p)
		if !ok {
			return
		}
		if b.memory != nil {
			b.memory.sent(h, rest)
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
		if b.windows.sent(h) {
			b.replace = len(refusedStream)
			b.replaceCode(rest)
		}
		p = rest
	}
}

// refusedStream is the error code that clients take for UNAVAILABLE.
var refusedStream = [4]byte{0, 0, 0, 0x7}

func (b *frameBudget) replaceCode(p []byte) {
	n := copy(p, refusedStream[len(refusedStream)-b.replace:])
	b.replace -= n
}

// The error codes of HTTP/2 (RFC 9113, section 7) that are sent from here.
const (
	errEnhanceYourCalm    = 0xb
	errInadequateSecurity = 0xc
)

// farewell returns the frame that tells a client why its connection ends.
func farewell(cause Cause) []byte {
	switch cause {
	case CauseMemory:
		return goAway(errEnhanceYourCalm, "server overloaded")
	case CauseHeaderTimeout:
		return goAway(errEnhanceYourCalm, "header timeout")
	default:
		return goAway(errEnhanceYourCalm, "too_many_"+string(cause))
	}
}

// emptySettings returns a SETTINGS frame, which must be the first frame that a server sends
// (RFC 9113, section 3.4).
func emptySettings() []byte { return []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0} }

// goAway returns a GOAWAY frame. The last stream that was handled is not known here: the
// highest says that any may have been.
func goAway(code uint32, text string) []byte {
	frame := make([]byte, 0, frameHeaderLen+8+len(text))
	frame = append(frame, 0, 0, byte(8+len(text)), frameGoAway, 0, 0, 0, 0, 0)
	frame = binary.BigEndian.AppendUint32(frame, 1<<31-1)
	frame = binary.BigEndian.AppendUint32(frame, code)
	return append(frame, text...)
}
