package http2

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// shortData is the largest DATA payload that counts as empty. Several clients send the prefix of a
	// message, five bytes, as a separate frame.
	shortData = 4
	// shortContinuation is the size below which a CONTINUATION frame is charged.
	shortContinuation = 1 << 10
	// windowsPerFrame is the number of WINDOW_UPDATE frames earned by each DATA frame sent and each stream
	// opened: one for the stream and one for the connection, doubled. gRPC C-core sends both for every
	// call, also if the response has no DATA.
	windowsPerFrame = 4
	// prioritiesPerStream is the number of PRIORITY and PRIORITY_UPDATE frames earned by each stream.
	prioritiesPerStream = 2
	// maxEarned caps unused earned frames of one kind, so that a long-lived connection cannot save up
	// credit for a flood.
	maxEarned = 1 << 14
	// pingBurst is the burst of pings: one on time and two early ones, like the two strikes of gRPC servers.
	pingBurst = 3
	// burstSeconds is the burst of a bucket, in seconds of its rate.
	burstSeconds = 10
	// lateDataBurst is the minimum burst of DATA frames for closed streams: a full connection window of small
	// items, two frames each, can be in transit when a stream is answered early.
	lateDataBurst = 1 << 15
)

// CloseReason says why the server closed a connection.
type CloseReason string

// Limits that a connection can exceed. The debug data of GOAWAY is "too_many_" and the reason, except for the
// last ones.
const (
	ClosePings         CloseReason = "pings"
	CloseSettings      CloseReason = "settings"
	CloseResets        CloseReason = "resets"
	CloseContinuations CloseReason = "continuations"
	CloseWindowUpdates CloseReason = "window_updates"
	CloseEmptyData     CloseReason = "empty_data"
	CloseLateData      CloseReason = "late_data"
	CloseOtherFrames   CloseReason = "other_frames"
	CloseHeaders       CloseReason = "headers"

	CloseMemory        CloseReason = "memory"
	CloseHeaderTimeout CloseReason = "header_timeout"
	CloseAge           CloseReason = "max_age"
)

// CloseReasons returns all reasons.
func CloseReasons() []CloseReason {
	return append(slices.Clone(bucketReasons[:]), CloseHeaders, CloseMemory, CloseHeaderTimeout, CloseAge)
}

// bucketReasons are the reasons of the buckets.
var bucketReasons = [buckets]CloseReason{
	ClosePings, CloseSettings, CloseResets, CloseContinuations, CloseWindowUpdates, CloseEmptyData, CloseLateData, CloseOtherFrames,
}

// debugData returns the debug data of GOAWAY.
func (r CloseReason) debugData() string {
	switch r {
	case CloseMemory:
		return "server overloaded"
	case CloseHeaderTimeout:
		return "header timeout"
	case CloseAge:
		return "max_age"
	default:
		return "too_many_" + string(r)
	}
}

// FrameLimits bound the frames of a connection that do not advance any stream. Frames that are a normal
// consequence of requests are not charged: window updates for received data, the reset of a stream with a
// response, a ping after a response.
type FrameLimits struct {
	// PerSecond is the rate of each kind of frame, with a burst of ten seconds. SETTINGS frames have a tenth of
	// the rate. 0: no limit.
	PerSecond int
	// ResetBurst is the minimum burst of stream resets.
	ResetBurst int
	// MinPingInterval is the minimum average interval of pings without HEADERS or DATA sent in between. 0: pings
	// are limited by PerSecond.
	MinPingInterval time.Duration
}

// Token buckets of a connection, in the order of bucketReasons.
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

// frameBudget charges received frames to token buckets unless they are earned. It belongs to the reading
// goroutine, except the counters of sent frames.
type frameBudget struct {
	limits FrameLimits
	now    func() monotonic

	fullAt                  [buckets]int64 // when each bucket is full again
	sentAtPing              int64          // frames sent as of the last ping
	streams                 int64          // opened by the client
	usedResets, usedWindows int64          // earned frames that were used
	usedPriorities          int64
	freeSettings            bool  // earned by a ping
	freeData, freeFragments int64 // short frames allowed by requests
	chargedResets           int64 // resets sent by the server that were charged
	notReset                int64 // streams without a reset so far
	lateData                int64 // DATA on closed streams since the last charge

	headersSent, dataSent, resetsSent atomic.Int64
}

// charge charges a frame. It returns the exceeded limit, if any.
func (b *frameBudget) charge(h frameHeader, payload []byte) CloseReason {
	switch h.kind {
	case frameData:
		return b.chargeData(h, payload)
	case frameHeaders:
		b.notReset++
		b.streams++
		b.freeData++
		if b.freeFragments = 1; h.has(flagEndHeaders) {
			b.freeFragments = 0
		}
		return b.chargeSentResets()
	case frameContinuation:
		if h.length >= shortContinuation || useFree(&b.freeFragments) {
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
			return b.chargeSettings(len(payload) / settingLen)
		}
	default:
	}
	return b.chargeBucket(bucketOther, 1)
}

func (b *frameBudget) chargeData(h frameHeader, payload []byte) CloseReason {
	if late := b.lateData; late > 0 {
		b.lateData = 0
		if reason := b.chargeBucket(bucketLateData, late); reason != "" {
			return reason
		}
	}
	size := len(payload)
	if h.has(flagPadded) && size > 0 {
		size -= 1 + int(payload[0])
	}
	if h.has(flagEndStream) || size > shortData {
		// connect-go sends the prefix of a message as a separate frame; a short message may follow.
		b.freeData = max(b.freeData, 1)
		return b.chargeSentResets()
	}
	if useFree(&b.freeData) {
		return ""
	}
	return b.chargeBucket(bucketEmptyData, 1)
}

// useEarned uses one earned frame, of which at most `most` are kept. It returns false if there is none.
func useEarned(used *int64, earned, most int64) bool {
	*used = max(*used, earned-most)
	if *used >= earned {
		return false
	}
	*used++
	return true
}

func useFree(free *int64) bool {
	if *free == 0 {
		return false
	}
	*free--
	return true
}

// maxFreeResets caps unused earned resets. All open streams can be reset at once; more would permit a rapid
// reset attack.
func (b *frameBudget) maxFreeResets() int64 {
	return max(int64(b.limits.ResetBurst), int64(b.limits.PerSecond*burstSeconds))
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

// chargeSettings charges a SETTINGS frame, and many entries as several. gRPC clients with bandwidth estimation
// send one after a ping.
func (b *frameBudget) chargeSettings(entries int) CloseReason {
	const usual = 16
	if b.freeSettings && entries <= usual {
		b.freeSettings = false
		return ""
	}
	return b.chargeBucket(bucketSettings, 1+int64(entries/usual))
}

// chargePing charges a PING frame. A ping is free if HEADERS or DATA were sent since the previous one, because
// clients measure the round trip that way. Other pings are charged on average, not individually, to tolerate
// jitter of timers and networks.
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

// chargeSentResets charges the client for streams reset by the server, because a client can provoke resets.
// Streams with a response are free. Each stream is charged once as a reset; further resets are responses to
// DATA on closed streams.
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

// chargeBucket takes frames from a bucket. A bucket is stored as the time when it is full again.
func (b *frameBudget) chargeBucket(bucket int, frames int64) CloseReason {
	cost, burst := b.rate(bucket)
	if cost <= 0 || frames == 0 {
		return ""
	}
	now := int64(b.now())
	full := max(b.fullAt[bucket], now) + frames*cost
	b.fullAt[bucket] = full
	if full-now > burst*cost {
		return bucketReasons[bucket]
	}
	return ""
}

// rate returns the cost of a frame in nanoseconds and the burst of a bucket. A cost of 0 means no limit.
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
