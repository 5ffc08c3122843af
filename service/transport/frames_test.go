package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"
)

// The scanner finds all frames at all read boundaries.
func TestFrameScanner(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var flow []byte
		var want []frameHeader
		for range rapid.IntRange(0, 10).Draw(t, "frames") {
			h := frameHeader{
				length: uint32(rapid.IntRange(0, 300).Draw(t, "length")),
				kind:   rapid.Byte().Draw(t, "kind"), flags: rapid.Byte().Draw(t, "flags"),
				stream: rapid.Uint32Range(0, 1<<31-1).Draw(t, "stream"),
			}
			want = append(want, h)
			flow = binary.BigEndian.AppendUint32(flow, h.length<<8|uint32(h.kind))
			flow = binary.BigEndian.AppendUint32(append(flow, h.flags), h.stream|1<<31) // the reserved bit is ignored
			flow = append(flow, bytes.Repeat([]byte{0xff}, int(h.length))...)
		}
		var s frameScanner
		var got []frameHeader
		for len(flow) > 0 {
			n := rapid.IntRange(1, min(len(flow), 40)).Draw(t, "cut")
			for p := flow[:n]; ; {
				h, rest, ok := s.next(p)
				if !ok {
					break
				}
				got, p = append(got, h), rest
			}
			flow = flow[n:]
		}
		if len(got) != len(want) || !s.atBoundary() {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

// wireFrames returns the bytes that the framer writes.
func wireFrames(t testing.TB, write func(*http2.Framer) error) []byte {
	t.Helper()
	var wire bytes.Buffer
	if err := write(http2.NewFramer(&wire, nil)); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

// floods are frames that exceed each limit when repeated.
func floods() map[CloseReason]func(*http2.Framer) error {
	return map[CloseReason]func(*http2.Framer) error{
		ClosePings:         func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
		CloseSettings:      func(f *http2.Framer) error { return f.WriteSettings() },
		CloseResets:        func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) },
		CloseContinuations: func(f *http2.Framer) error { return f.WriteContinuation(1, false, nil) },
		CloseWindowUpdates: func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) },
		CloseEmptyData:     func(f *http2.Framer) error { return f.WriteData(1, false, nil) },
		CloseOtherFrames:   func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
	}
}

func TestFrameBudgetLimitsEachKind(t *testing.T) {
	for reason, write := range floods() {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFrameBudget(FrameLimits{PerSecond: 100, ResetBurst: 2000}, len(clientPreface))
				flood := wireFrames(t, write)
				want := map[CloseReason]int{CloseSettings: 100, CloseResets: 2000}[reason]
				if want == 0 {
					want = 1000
				}
				passed := 0
				var got CloseReason
				for got = b.received(flood); got == "" && passed < 10_000; got = b.received(flood) {
					passed++
				}
				if got != reason || passed < want-1 || passed > want+1 {
					t.Errorf("%d frames passed, then %q, want about %d and %q", passed, got, want, reason)
				}

				// Within its rate a client is never limited.
				b = newFrameBudget(FrameLimits{PerSecond: 100, ResetBurst: 2000}, len(clientPreface))
				for range 10_000 {
					if got := b.received(flood); got != "" {
						t.Fatalf("received(frames within the rate) = %q, want none", got)
					}
					time.Sleep(time.Second / 10)
				}
			})
		})
	}
}

// Frames that are a normal consequence of calls are not charged.
func TestFrameBudgetOfBusyClient(t *testing.T) {
	b := newFrameBudget(FrameLimits{PerSecond: 1, ResetBurst: 1, MinPingInterval: time.Hour}, len(clientPreface))
	asks := wireFrames(t, func(f *http2.Framer) error {
		block := bytes.Repeat([]byte("h"), 2000)
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}),
			f.WriteContinuation(1, true, []byte("h")),
			f.WriteData(1, false, []byte("{}")),
			f.WriteData(1, false, bytes.Repeat([]byte("d"), 100)),
			f.WriteData(1, true, nil),
		)
	})
	reacts := wireFrames(t, func(f *http2.Framer) error {
		return errors.Join(
			f.WritePing(false, [8]byte{}), f.WriteWindowUpdate(0, 1), f.WriteWindowUpdate(1, 1),
			f.WriteRSTStream(1, http2.ErrCodeCancel),
		)
	})
	response := wireFrames(t, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true}),
			f.WriteData(1, false, []byte("message")),
		)
	})
	for i := range 10_000 {
		if got := b.received(asks); got != "" {
			t.Fatalf("received(call %d) = %q, want none", i, got)
		}
		b.sent(response)
		if got := b.received(reacts); got != "" {
			t.Fatalf("received(control frames %d) = %q, want none", i, got)
		}
	}
}

// Streams reset by the server are charged like streams reset by the client.
func TestFrameBudgetOfServerResets(t *testing.T) {
	b := newFrameBudget(FrameLimits{PerSecond: 10, ResetBurst: 50}, len(clientPreface))
	asks := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	})
	reset := wireFrames(t, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeProtocol) })
	for i := range 1000 {
		if got := b.received(asks); got != "" {
			if got != CloseResets || i < 99 || i > 102 {
				t.Errorf("received() = %q after %d streams, want %q after about 100", got, i, CloseResets)
			}
			return
		}
		b.sent(reset)
	}
	t.Error("received() never reports a limit")
}

// DATA for a closed stream, to which the server responds with RST_STREAM, is allowed for the amount
// that can be in transit.
func TestFrameBudgetOfLateData(t *testing.T) {
	opens := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	})
	response := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true, EndStream: true})
	})
	data := wireFrames(t, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 32)) })
	reset := wireFrames(t, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeStreamClosed) })
	synctest.Test(t, func(t *testing.T) {
		b := newFrameBudget(FrameLimits{PerSecond: 10, ResetBurst: 50}, len(clientPreface))
		// late sends DATA to a stream that has a response.
		late := func(frames int) (got CloseReason) {
			got = b.received(opens)
			b.sent(response)
			for i := 0; i < frames && got == ""; i++ {
				got = b.received(data)
				b.sent(reset)
			}
			return got
		}
		// Full windows of large frames, repeatedly, and then one of small frames.
		for range 100 {
			if got := late(1 << 20 / (16 << 10)); got != "" {
				t.Fatalf("received(rejected uploads) = %q, want none", got)
			}
			time.Sleep(10 * time.Second)
		}
		if got := late(1 << 20 / 40); got != "" {
			t.Errorf("received(rejected import) = %q, want none", got)
		}
		if got := late(1 << 20); got != CloseLateData {
			t.Errorf("received(flood) = %q, want %q", got, CloseLateData)
		}
	})
}

// Pings are limited as in gRPC servers.
func TestPingPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFrameBudget(FrameLimits{PerSecond: 100, MinPingInterval: 30 * time.Second}, len(clientPreface))
		ping := wireFrames(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
		for range 100 {
			if got := b.received(ping); got != "" {
				t.Fatalf("received(ping within the interval) = %q, want none", got)
			}
			time.Sleep(30 * time.Second)
		}
		for i := range 4 {
			got := b.received(ping)
			if (got == ClosePings) != (i == 3) {
				t.Errorf("received(early ping %d) = %q, want the limit at ping 3", i, got)
			}
			time.Sleep(time.Second)
		}
	})
}

// A connection that exceeds a limit receives all earlier writes and then a GOAWAY with the reason.
// Later writes fail.
func TestCloseWithGoAway(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var reasons []CloseReason
	listener := Listen(inner, ListenOptions{
		StallTimeout: stallTimeout, Frames: FrameLimits{PerSecond: 10},
		OnClose: func(_ net.Addr, reason CloseReason) { reasons = append(reasons, reason) },
	})
	defer func() { _ = listener.Close() }()
	var dialer net.Dialer
	peer, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	flood := wireFrames(t, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) })
	go func() { // sends until the connection is closed
		_, _ = io.WriteString(peer, asHTTP2)
		for range 1 << 20 {
			if _, err := peer.Write(flood); err != nil {
				return
			}
		}
	}()
	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len(asHTTP2))); err != nil {
		t.Fatal(err)
	}
	before := wireFrames(t, func(f *http2.Framer) error { return f.WriteData(1, false, []byte("before")) })
	if _, err := c.Write(before); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		served <- err
	}()
	framer := http2.NewFramer(nil, peer)
	if data, err := framer.ReadFrame(); err != nil || data.Header().Type != http2.FrameData {
		t.Errorf("ReadFrame() = %v, %v, want DATA", data, err)
	}
	frame, err := framer.ReadFrame()
	if goAway, ok := frame.(*http2.GoAwayFrame); !ok || goAway.ErrCode != http2.ErrCodeEnhanceYourCalm ||
		string(goAway.DebugData()) != "too_many_resets" {
		t.Errorf("ReadFrame() = %v, %v, want GOAWAY with too_many_resets", frame, err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read() of the server = %v, want net.ErrClosed", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("Write() after the end = nil, want an error")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if listener.Open() != 0 || len(reasons) != 1 || reasons[0] != CloseResets {
		t.Errorf("Open() = %d, OnClose called with %v, want 0 and [resets]", listener.Open(), reasons)
	}
}

func TestGoAwayTextForPings(t *testing.T) {
	// gRPC clients recognize this text and ping less often.
	if !strings.HasSuffix(string(goAwayFor(ClosePings, 0)), "too_many_pings") {
		t.Errorf("goAwayFor(ClosePings, 0) = %q, want too_many_pings", goAwayFor(ClosePings, 0))
	}
}

// Charging the frames of a call must cost little.
func BenchmarkFrameBudget(b *testing.B) {
	wire := wireFrames(b, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 80), EndHeaders: true}),
			f.WriteData(1, true, make([]byte, 20)),
			f.WriteWindowUpdate(0, 1),
		)
	})
	response := wireFrames(b, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 20), EndHeaders: true}),
			f.WriteData(1, false, make([]byte, 100)),
		)
	})
	budget := newFrameBudget(FrameLimits{PerSecond: 100, ResetBurst: 2000, MinPingInterval: time.Minute}, len(clientPreface))
	b.ReportAllocs()
	for b.Loop() {
		budget.sent(response)
		if budget.received(wire) != "" {
			b.Fatal("over the budget")
		}
	}
}
