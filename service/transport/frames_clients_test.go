package transport

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// The control frames that clients send for each call are free, however many calls there
// are and although no response has DATA. Each case is the pattern of one client, as seen
// on the wire.
func TestBudgetOfClients(t *testing.T) {
	opens := func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	}
	for name, call := range map[string]func(*http2.Framer) error{
		"gRPC C-core: two windows a call": func(f *http2.Framer) error {
			return errors.Join(opens(f), f.WriteWindowUpdate(1, 5), f.WriteData(1, true, make([]byte, 7)), f.WriteWindowUpdate(0, 5))
		},
		"a browser: a priority and its update": func(f *http2.Framer) error {
			return errors.Join(opens(f), f.WritePriority(1, http2.PriorityParam{StreamDep: 3}),
				f.WriteRawFrame(framePriorityNew, 0, 0, []byte("\x00\x00\x00\x01u=1")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFrameBudget(FrameLimits{PerSecond: 1, Resets: 1}, len(fullPreface))
			asks := wireFrames(t, call)
			fails := wireFrames(t, func(f *http2.Framer) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true, EndStream: true})
			})
			for i := range 10_000 {
				if got := b.received(asks); got != "" {
					t.Fatalf("received(call %d) = %q, want none", i, got)
				}
				if i >= 1000 { // the first streams stay open and idle
					b.sent(fails)
				}
			}
		})
	}
}

// A client that estimates the bandwidth pings after a response and then announces a new
// window.
func TestBudgetOfBandwidthEstimation(t *testing.T) {
	b := newFrameBudget(FrameLimits{PerSecond: 1, PingEvery: time.Hour}, len(fullPreface))
	data := wireFrames(t, func(f *http2.Framer) error { return f.WriteData(1, false, []byte("message")) })
	estimates := wireFrames(t, func(f *http2.Framer) error {
		return errors.Join(f.WritePing(false, [8]byte{}), f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	})
	for i := range 1000 {
		b.sent(data)
		if got := b.received(estimates); got != "" {
			t.Fatalf("received(estimate %d) = %q, want none", i, got)
		}
	}
}

// What many calls have earned does not add up to a flood.
func TestEarnedFramesDoNotAddUp(t *testing.T) {
	call := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	})
	for cause, most := range map[Cause]int{
		CauseWindows: maxEarned + 1000, CauseOther: maxEarned + 1000, CauseResets: 2*2000 + 1,
	} {
		t.Run(string(cause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFrameBudget(FrameLimits{PerSecond: 100, Resets: 2000}, len(fullPreface))
				for range 100_000 {
					b.received(call)
					b.sent(call)
				}
				flood := wireFrames(t, floods()[cause])
				passed := 0
				for b.received(flood) == "" && passed < 1_000_000 {
					passed++
				}
				if passed > most {
					t.Errorf("%d frames passed, want %d at most", passed, most)
				}
			})
		})
	}
}

// A client may ping at exactly the allowed interval for as long as it likes, whatever its
// timer and the network add to or take from each interval.
func TestPingsMayJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFrameBudget(FrameLimits{PerSecond: 100, PingEvery: 5 * time.Second}, len(fullPreface))
		ping := wireFrames(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
		for i := range 10_000 {
			if got := b.received(ping); got != "" {
				t.Fatalf("received(ping %d) = %q, want none", i, got)
			}
			jitter := time.Duration(i%7-3) * 200 * time.Millisecond
			time.Sleep(5*time.Second + jitter)
		}
	})
}
