package transport

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"
)

// The windows match the frames in both directions, at all read boundaries.
func TestSendWindowsMatchFrames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newFrameBudget(FrameLimits{}, len(clientPreface))
		initial, conn := int64(initialWindow), int64(initialWindow)
		credit := make(map[uint32]int64)
		for next, step := uint32(1), 0; step < rapid.IntRange(1, 60).Draw(t, "steps"); step++ {
			var in, out bytes.Buffer
			receives, sends := http2.NewFramer(&in, nil), http2.NewFramer(&out, nil)
			stream := uint32(rapid.IntRange(0, int(next)/2).Draw(t, "stream"))*2 + 1 // also a stream that is not open
			_, open := credit[stream]
			amount := rapid.Uint32Range(1, 20_000).Draw(t, "amount")
			var err error
			switch rapid.IntRange(0, 6).Draw(t, "frame") {
			case 0:
				err = receives.WriteHeaders(http2.HeadersFrameParam{StreamID: next, BlockFragment: []byte("h"), EndHeaders: true})
				credit[next] = 0
				next += 2
			case 1:
				err = receives.WriteWindowUpdate(stream, amount)
				if open {
					credit[stream] += int64(amount)
				}
			case 2:
				err = receives.WriteWindowUpdate(0, amount)
				conn += int64(amount)
			case 3:
				err = receives.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: amount})
				initial = int64(amount)
			case 4:
				err = receives.WriteRSTStream(stream, http2.ErrCodeCancel)
				delete(credit, stream)
			case 5:
				size := min(amount, 1<<14)
				err = sends.WriteData(stream, false, make([]byte, size))
				conn -= int64(size)
				if open {
					credit[stream] -= int64(size)
				}
			case 6:
				err = sends.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte("h"), EndHeaders: true, EndStream: true})
				delete(credit, stream)
			}
			if err != nil {
				t.Fatal(err)
			}
			cut(t, in.Bytes(), func(p []byte) { b.received(p) })
			cut(t, out.Bytes(), b.sent)
		}
		w := b.windows
		if w.initial != initial || w.conn != conn || len(w.streams) != len(credit) {
			t.Fatalf("initial %d, connection %d, %d streams; want %d, %d, %d", w.initial, w.conn, len(w.streams), initial, conn, len(credit))
		}
		for stream, want := range credit {
			if got := w.streams[stream]; got == nil || got.credit != want {
				t.Fatalf("stream %d: %+v, want credit %d", stream, got, want)
			}
		}
	})
}

func cut(t *rapid.T, p []byte, take func([]byte)) {
	for len(p) > 0 {
		n := rapid.IntRange(1, min(len(p), 16)).Draw(t, "cut")
		if len(p) > 1<<10 {
			n = len(p) - 4 // split a long payload into few parts
		}
		take(p[:n])
		p = p[n:]
	}
}

// A reservation does not exceed either window. A waiter is woken by each frame that may enlarge the
// window and by the end of the stream.
func TestReserveWaitsForWindow(t *testing.T) {
	t.Parallel()
	const message = 30_000
	for name, c := range map[string]struct {
		wake  func(*http2.Framer) error
		waits bool // the window is still too small
	}{
		"stream window":             {func(f *http2.Framer) error { return f.WriteWindowUpdate(1, message) }, false},
		"stream window, too little": {func(f *http2.Framer) error { return f.WriteWindowUpdate(1, 1) }, true},
		"larger initial window": {func(f *http2.Framer) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		}, false},
		"connection window": {func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }, true},
		"reset":             {func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFrameBudget(FrameLimits{}, len(clientPreface))
			b.received(wireFrames(t, func(f *http2.Framer) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
			}))
			b.received(wireFrames(t, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1<<20) }))
			for range initialWindow / message {
				if b.windows.reserve(1, message) != nil {
					t.Fatal("reserve waits while there is room")
				}
			}
			wake := b.windows.reserve(1, message)
			if wake == nil {
				t.Fatal("reserve of more than the window does not wait")
			}
			b.received(wireFrames(t, c.wake))
			select {
			case <-wake:
			default:
				t.Fatal("not woken")
			}
			if waits := b.windows.reserve(1, message) != nil; waits != c.waits {
				t.Errorf("reserve waits: %t, want %t", waits, c.waits)
			}
		})
	}
	b := newFrameBudget(FrameLimits{}, len(clientPreface))
	b.windows.streams[1] = new(sendWindow)
	if b.windows.reserve(1, initialWindow) != nil {
		t.Error("reserve waits for a message larger than half of the window: its client may never open it")
	}
}

// The drain timeout starts with the drain, not with the stall.
func TestDrainTimeoutStartsWithDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Guard{opts: GuardOptions{StallTimeout: 15 * time.Second}, drainSignal: make(chan struct{}, 1)}
		x := new(Exchange)
		x.streaming.Store(true)
		since := time.Now()
		time.Sleep(3 * time.Second)
		g.ShortenTimeouts(4 * time.Second)
		for _, c := range []struct {
			after time.Duration
			want  bool
		}{{0, false}, {3900 * time.Millisecond, false}, {4 * time.Second, true}} {
			if got := g.stalled(x, since, time.Now().Add(c.after)); got != c.want {
				t.Errorf("%v after the drain began: stalled = %t, want %t", c.after, got, c.want)
			}
		}
		if !g.stalled(x, since.Add(-12*time.Second), time.Now()) {
			t.Error("the stall timeout itself no longer counts")
		}
	})
}
