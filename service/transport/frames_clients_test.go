package transport

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// Control frames that clients send for each call are not charged, for any number of calls, also if
// no response has DATA. Each case is the observed pattern of a client.
func TestFrameBudgetOfKnownClients(t *testing.T) {
	opens := func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	}
	for name, call := range map[string]func(*http2.Framer) error{
		"gRPC C-core: two windows a call": func(f *http2.Framer) error {
			return errors.Join(opens(f), f.WriteWindowUpdate(1, 5), f.WriteData(1, true, make([]byte, 7)), f.WriteWindowUpdate(0, 5))
		},
		"a browser: a priority and its update": func(f *http2.Framer) error {
			return errors.Join(opens(f), f.WritePriority(1, http2.PriorityParam{StreamDep: 3}),
				f.WriteRawFrame(framePriorityUpdate, 0, 0, []byte("\x00\x00\x00\x01u=1")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFrameBudget(FrameLimits{PerSecond: 1, ResetBurst: 1}, len(clientPreface))
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

// A client with bandwidth estimation pings after a response and then announces a new window.
func TestFrameBudgetOfBandwidthEstimation(t *testing.T) {
	b := newFrameBudget(FrameLimits{PerSecond: 1, MinPingInterval: time.Hour}, len(clientPreface))
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

// Earned frames are capped.
func TestEarnedFramesAreCapped(t *testing.T) {
	call := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	})
	for reason, most := range map[CloseReason]int{
		CloseWindowUpdates: maxEarned + 1000, CloseOtherFrames: maxEarned + 1000, CloseResets: 2*2000 + 1,
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFrameBudget(FrameLimits{PerSecond: 100, ResetBurst: 2000}, len(clientPreface))
				for range 100_000 {
					b.received(call)
					b.sent(call)
				}
				flood := wireFrames(t, floods()[reason])
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

// Pings at exactly the allowed interval are permitted indefinitely, with jitter of timers and
// networks.
func TestPingJitterIsTolerated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFrameBudget(FrameLimits{PerSecond: 100, MinPingInterval: 5 * time.Second}, len(clientPreface))
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
