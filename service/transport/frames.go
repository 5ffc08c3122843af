package transport

import (
	"sync/atomic"
	"time"
)

const (
	// shortData is the largest DATA payload that counts as empty. Several clients send the prefix
	// of a message, five bytes, as a separate frame.
	shortData = 4
	// shortPadded is the same for padded frames, whose header does not show the length of the
	// padding.
	shortPadded = 257
	// shortContinuation is the size below which a CONTINUATION frame is charged.
	shortContinuation = 1 << 10
	// windowsPerFrame is the number of WINDOW_UPDATE frames earned by each DATA frame sent and each
	// stream opened: one for the stream and one for the connection, doubled. gRPC C-core sends both
	// for every call, also if the response has no DATA.
	windowsPerFrame = 4
	// prioritiesPerStream is the number of PRIORITY and PRIORITY_UPDATE frames earned by each
	// stream. Browsers send one or two per request.
	prioritiesPerStream = 2
	// maxEarned caps unused earned frames of one kind, so that a long-lived connection cannot save
	// up credit for a flood.
	maxEarned = 1 << 14
	// pingBurst is the burst of pings: one on time and two early ones, like the two strikes of gRPC
	// servers.
	pingBurst = 3
	// burstSeconds is the burst of a bucket, in seconds of its rate.
	burstSeconds = 10
	// lateDataBurst is the minimum burst of DATA frames for closed streams: a full connection
	// window of small items, two frames each, can be in transit when a stream ends early.
	lateDataBurst = 1 << 15
)

// FrameLimits bound the frames of an HTTP/2 connection that do not advance any call. Frames that
// are a normal consequence of calls are not charged: window updates for received data, the reset of
// a stream with a response, a ping after a response.
type FrameLimits struct {
	// PerSecond is the rate of each kind of frame, with a burst of ten seconds. SETTINGS frames
	// have a tenth of the rate. 0: no limit.
	PerSecond int
	// ResetBurst is the minimum burst of stream resets.
	ResetBurst int
	// MinPingInterval is the minimum interval of pings without HEADERS or DATA sent in between. 0:
	// pings are limited by PerSecond.
	MinPingInterval time.Duration
}

// Token buckets of a connection, in the order of CloseReasons.
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

// frameBudget limits the frames received on a connection. The reading goroutine charges frames,
// writing goroutines add credit. It does not allocate.
type frameBudget struct {
	limits FrameLimits
	start  time.Time

	in         frameScanner
	now        int64          // since start; 0: not read yet
	fullAt     [buckets]int64 // when each bucket is full again, since start
	memory     *connMemory    // nil: not accounted
	memoryErr  error          // no memory for received frames
	maxStreams int32
	lastStream uint32 // highest id of a stream opened by the client
	sentAtPing int64  // frames sent as of the last ping

	streams                   int64 // opened by the client
	usedResets, usedWindows   int64 // earned frames that were used
	usedPriorities            int64 // earned frames that were used
	freeSettings              bool  // earned by a ping
	freeData, freeHeaderParts int64 // short frames allowed by requests
	chargedResets             int64 // resets sent by the server that were charged
	notReset                  int64 // streams without a reset so far

	windows *sendWindows

	out                               frameScanner             // guarded by serverConn.mu
	replace                           int                      // bytes of an error code still to be replaced; guarded by serverConn.mu
	dataFrames                        map[uint32]*atomic.Int64 // DATA frames sent on these streams; guarded by serverConn.mu
	headersSent, dataSent, resetsSent atomic.Int64
}

// newFrameBudget returns the budget of a connection of which read bytes were received.
func newFrameBudget(limits FrameLimits, read int) *frameBudget {
	b := &frameBudget{limits: limits, start: time.Now(), windows: newSendWindows()}
	b.in.skip = uint32(len(clientPreface) - read)
	return b
}

// received charges input. It returns the exceeded limit, if any.
func (b *frameBudget) received(p []byte) CloseReason {
	b.now = 0
	b.windows.payload(p)
	for {
		h, rest, ok := b.in.next(p)
		if !ok {
			return ""
		}
		b.windows.frame(h)
		if h.kind == frameHeaders {
			b.lastStream = max(b.lastStream, h.stream)
		}
		b.windows.payload(rest)
		if b.memory != nil {
			if err := b.memory.frame(h, b.maxStreams); err != nil {
				b.memoryErr = err
			}
		}
		if reason := b.charge(h); reason != "" {
			return reason
		}
		p = rest
	}
}

func (b *frameBudget) charge(h frameHeader) CloseReason {
	switch h.kind {
	case frameData:
		if hasData(h) {
			// connect-go sends the prefix of a message as a separate frame; a short message may
			// follow.
			b.freeData = max(b.freeData, 1)
			return b.chargeSentResets()
		}
		if useFree(&b.freeData) {
			return ""
		}
		return b.chargeBucket(bucketEmptyData, 1)
	case frameHeaders:
		b.notReset++
		b.streams++
		b.freeData++
		if b.freeHeaderParts = 1; h.has(flagEndHeaders) {
			b.freeHeaderParts = 0
		}
		return b.chargeSentResets()
	case frameContinuation:
		if h.length >= shortContinuation || useFree(&b.freeHeaderParts) {
			return ""
		}
		return b.chargeBucket(bucketContinuations, 1)
	case frameRSTStream:
		if useEarned(&b.usedResets, b.headersSent.Load(), b.maxFreeResets()) {
			return ""
		}
		return b.chargeBucket(bucketResets, 1)
	case frameWindowUpdate:
		return b.chargeWindowUpdate()
	case framePriority, framePriorityUpdate:
		if useEarned(&b.usedPriorities, prioritiesPerStream*b.streams, maxEarned) {
			return ""
		}
	case framePing:
		if !h.has(flagAck) {
			return b.chargePing()
		}
	case frameSettings:
		if !h.has(flagAck) {
			return b.chargeSettings()
		}
	}
	return b.chargeBucket(bucketOther, 1)
}

// useEarned uses one earned frame, of which at most `most` are kept. It returns false if there is
// none.
func useEarned(used *int64, earned, most int64) bool {
	*used = max(*used, earned-most)
	if *used >= earned {
		return false
	}
	*used++
	return true
}

// maxFreeResets caps unused earned resets. All open streams can be reset at once; more would permit
// a rapid reset attack.
func (b *frameBudget) maxFreeResets() int64 {
	return max(int64(b.limits.ResetBurst), int64(b.limits.PerSecond*burstSeconds))
}

// hasData reports whether a DATA frame carries a relevant amount of data or ends its stream.
func hasData(h frameHeader) bool {
	least := uint32(shortData)
	if h.has(flagPadded) {
		least = shortPadded
	}
	return h.has(flagEndStream) || h.length > least
}

func (b *frameBudget) chargeWindowUpdate() CloseReason {
	if useEarned(&b.usedWindows, windowsPerFrame*(b.dataSent.Load()+b.streams), maxEarned) {
		return ""
	}
	if reason := b.chargeBucket(bucketWindows, 1); reason != "" {
		return reason
	}
	return b.chargeSentResets() // the server resets the stream after an invalid WINDOW_UPDATE
}

func useFree(free *int64) bool {
	if *free == 0 {
		return false
	}
	*free--
	return true
}

// chargeSettings charges a SETTINGS frame. gRPC clients with bandwidth estimation send one after a
// ping.
func (b *frameBudget) chargeSettings() CloseReason {
	if b.freeSettings {
		b.freeSettings = false
		return ""
	}
	return b.chargeBucket(bucketSettings, 1)
}

// chargePing charges a PING frame. A ping is free if HEADERS or DATA were sent since the previous
// one, because clients measure the round trip that way. Other pings are charged on average, not
// individually, to tolerate jitter of timers and networks.
func (b *frameBudget) chargePing() CloseReason {
	sent := b.headersSent.Load() + b.dataSent.Load()
	fresh := sent != b.sentAtPing
	b.sentAtPing = sent
	if fresh {
		if b.freeSettings = true; b.limits.MinPingInterval > 0 {
			b.fullAt[bucketPings] = 0 // reset the strikes
		}
		return ""
	}
	return b.chargeBucket(bucketPings, 1)
}

// chargeSentResets charges the client for streams reset by the server, because a client can provoke
// resets. Streams with a response are free. Each stream is charged once as a reset; further resets
// are responses to DATA on closed streams.
func (b *frameBudget) chargeSentResets() CloseReason {
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
	b.notReset = max(b.notReset-free, 0)
	own := min(n-free, b.notReset)
	b.notReset -= own
	if reason := b.chargeBucket(bucketResets, own); reason != "" {
		return reason
	}
	return b.chargeBucket(bucketLateData, n-free-own)
}

// charge takes frames from a bucket. A bucket is stored as the time when it is full again.
func (b *frameBudget) chargeBucket(bucket int, frames int64) CloseReason {
	cost, burst := b.rate(bucket)
	if cost <= 0 || frames == 0 {
		return ""
	}
	now := b.clock()
	full := max(b.fullAt[bucket], now) + frames*cost
	b.fullAt[bucket] = full
	if full-now > burst*cost {
		return CloseReasons()[bucket]
	}
	return ""
}

// rate returns the cost of a frame in nanoseconds and the burst of a bucket. A cost of 0 means no
// limit.
func (b *frameBudget) rate(bucket int) (cost, burst int64) {
	if bucket == bucketPings && b.limits.MinPingInterval > 0 {
		// 10 % tolerance for clocks of different speed.
		return int64(b.limits.MinPingInterval / 10 * 9), pingBurst
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
		burst = max(burst, int64(b.limits.ResetBurst))
	case bucketLateData:
		burst = max(burst, lateDataBurst)
	}
	return int64(time.Second) / rate, burst
}

// clock reads the clock once per input.
func (b *frameBudget) clock() int64 {
	if b.now == 0 {
		b.now = int64(time.Since(b.start)) + 1
	}
	return b.now
}

// sent records output, and replaces the error code of streams marked by refuseOnReset. The caller
// holds serverConn.mu.
func (b *frameBudget) sent(p []byte) {
	b.replaceErrorCode(p)
	if b.memory != nil {
		b.memory.sent(frameHeader{}, p)
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
			if taken := b.dataFrames[h.stream]; taken != nil && h.length > 0 {
				taken.Add(1)
			}
		case frameRSTStream:
			b.resetsSent.Add(1)
		}
		if b.windows.sent(h) {
			b.replace = len(refusedStream)
			b.replaceErrorCode(rest)
		}
		p = rest
	}
}

// refusedStream is the error code REFUSED_STREAM. gRPC clients map it to UNAVAILABLE.
var refusedStream = [4]byte{0, 0, 0, 0x7}

func (b *frameBudget) replaceErrorCode(p []byte) {
	n := copy(p, refusedStream[len(refusedStream)-b.replace:])
	b.replace -= n
}
