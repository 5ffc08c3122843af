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

// Whatever the frames and however they are cut, their headers are found.
func TestFrameScan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var flow []byte
		var want []frameHead
		for range rapid.IntRange(0, 10).Draw(t, "frames") {
			h := frameHead{
				length: uint32(rapid.IntRange(0, 300).Draw(t, "length")),
				kind:   rapid.Byte().Draw(t, "kind"), flags: rapid.Byte().Draw(t, "flags"),
				stream: rapid.Uint32Range(0, 1<<31-1).Draw(t, "stream"),
			}
			want = append(want, h)
			flow = binary.BigEndian.AppendUint32(flow, h.length<<8|uint32(h.kind))
			flow = binary.BigEndian.AppendUint32(append(flow, h.flags), h.stream|1<<31) // of which one bit means nothing
			flow = append(flow, bytes.Repeat([]byte{0xff}, int(h.length))...)
		}
		var s frameScan
		var got []frameHead
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
		if len(got) != len(want) || !s.between() {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

// wireFrames returns what the framer writes.
func wireFrames(t testing.TB, write func(*http2.Framer) error) []byte {
	t.Helper()
	var wire bytes.Buffer
	if err := write(http2.NewFramer(&wire, nil)); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

// floods are the frames that cost a client little, each with what is said of too many.
func floods() map[Cause]func(*http2.Framer) error {
	return map[Cause]func(*http2.Framer) error{
		CausePings:         func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
		CauseSettings:      func(f *http2.Framer) error { return f.WriteSettings() },
		CauseResets:        func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) },
		CauseContinuations: func(f *http2.Framer) error { return f.WriteContinuation(1, false, nil) },
		CauseWindows:       func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) },
		CauseEmptyData:     func(f *http2.Framer) error { return f.WriteData(1, false, nil) },
		CauseOther:         func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
	}
}

func TestBudgetOfEachKind(t *testing.T) {
	for cause, write := range floods() {
		t.Run(string(cause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFrameBudget(FrameLimits{PerSecond: 100, Resets: 2000}, len(fullPreface))
				flood := wireFrames(t, write)
				want := map[Cause]int{CauseSettings: 100, CauseResets: 2000}[cause]
				if want == 0 {
					want = 1000
				}
				passed := 0
				var got Cause
				for got = b.received(flood); got == "" && passed < 10_000; got = b.received(flood) {
					passed++
				}
				if got != cause || passed < want-1 || passed > want+1 {
					t.Errorf("%d passed, then %q", passed, got)
				}

				// Within its rate a client may go on for ever.
				b = newFrameBudget(FrameLimits{PerSecond: 100, Resets: 2000}, len(fullPreface))
				for range 10_000 {
					if got := b.received(flood); got != "" {
						t.Fatalf("within the rate: %q", got)
					}
					time.Sleep(time.Second / 10)
				}
			})
		})
	}
}

// What calls give reason for costs nothing.
func TestBudgetOfABusyClient(t *testing.T) {
	b := newFrameBudget(FrameLimits{PerSecond: 1, Resets: 1, PingEvery: time.Hour}, len(fullPreface))
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
	answer := wireFrames(t, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true}),
			f.WriteData(1, false, []byte("message")),
		)
	})
	for i := range 10_000 {
		if got := b.received(asks); got != "" {
			t.Fatalf("call %d: %q", i, got)
		}
		b.sent(answer)
		if got := b.received(reacts); got != "" {
			t.Fatalf("reaction %d: %q", i, got)
		}
	}
}

// Streams that the server has to reset count as those that the client resets.
func TestBudgetOfResetsThatAreBroughtAbout(t *testing.T) {
	b := newFrameBudget(FrameLimits{PerSecond: 10, Resets: 50}, len(fullPreface))
	asks := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	})
	reset := wireFrames(t, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeProtocol) })
	for i := range 1000 {
		if got := b.received(asks); got != "" {
			if got != CauseResets || i < 99 || i > 102 {
				t.Errorf("%q after %d", got, i)
			}
			return
		}
		b.sent(reset)
	}
	t.Error("it goes on for ever")
}

// DATA for a stream that is closed, which the server answers with a reset each time, may
// come for as long as it may have been on its way, and not for ever.
func TestBudgetOfLateData(t *testing.T) {
	opens := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true})
	})
	answer := wireFrames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("h"), EndHeaders: true, EndStream: true})
	})
	data := wireFrames(t, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 32)) })
	reset := wireFrames(t, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeStreamClosed) })
	synctest.Test(t, func(t *testing.T) {
		b := newFrameBudget(FrameLimits{PerSecond: 10, Resets: 50}, len(fullPreface))
		// late sends data to a stream that has been answered, and gives what is said of it.
		late := func(frames int) (got Cause) {
			got = b.received(opens)
			b.sent(answer)
			for i := 0; i < frames && got == ""; i++ {
				got = b.received(data)
				b.sent(reset)
			}
			return got
		}
		// A window full of large frames, again and again, and one of small ones.
		for range 100 {
			if got := late(1 << 20 / (16 << 10)); got != "" {
				t.Fatalf("refused uploads: %q", got)
			}
			time.Sleep(10 * time.Second)
		}
		if got := late(1 << 20 / 40); got != "" {
			t.Errorf("a refused import: %q", got)
		}
		if got := late(1 << 20); got != CauseLateData {
			t.Errorf("a flood: %q", got)
		}
	})
}

// Pings are judged as gRPC servers judge them.
func TestPingPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFrameBudget(FrameLimits{PerSecond: 100, PingEvery: 30 * time.Second}, len(fullPreface))
		ping := wireFrames(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
		for range 100 {
			if got := b.received(ping); got != "" {
				t.Fatalf("a patient client: %q", got)
			}
			time.Sleep(30 * time.Second)
		}
		for i := range 4 {
			got := b.received(ping)
			if (got == CausePings) != (i == 3) {
				t.Errorf("ping %d: %q", i, got)
			}
			time.Sleep(time.Second)
		}
	})
}

// A connection over its budget is told why, all that was written before arrives, and
// nothing is taken any more.
func TestDismissal(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var told []Cause
	listener := Listen(inner, ListenOptions{
		StallTimeout: stallLimit, Frames: FrameLimits{PerSecond: 10},
		Overdrawn: func(_ net.Addr, cause Cause) { told = append(told, cause) },
	})
	defer func() { _ = listener.Close() }()
	var dialer net.Dialer
	peer, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	flood := wireFrames(t, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) })
	go func() { // it sends on until the connection is closed
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
		t.Errorf("got %v, %v", data, err)
	}
	frame, err := framer.ReadFrame()
	if goAway, ok := frame.(*http2.GoAwayFrame); !ok || goAway.ErrCode != http2.ErrCodeEnhanceYourCalm ||
		string(goAway.DebugData()) != "too_many_resets" {
		t.Errorf("got %v, %v", frame, err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the server reads %v", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a later write is taken")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if listener.Open() != 0 || len(told) != 1 || told[0] != CauseResets {
		t.Errorf("%d connections are open, told %v", listener.Open(), told)
	}
}

func TestFarewellHasTheWordsOfGRPC(t *testing.T) {
	// gRPC clients know this text, and ping less often from then on.
	if !strings.HasSuffix(string(farewell(CausePings)), "too_many_pings") {
		t.Errorf("got %q", farewell(CausePings))
	}
}

// A call's frames are looked at for next to nothing.
func BenchmarkBudget(b *testing.B) {
	wire := wireFrames(b, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 80), EndHeaders: true}),
			f.WriteData(1, true, make([]byte, 20)),
			f.WriteWindowUpdate(0, 1),
		)
	})
	answer := wireFrames(b, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 20), EndHeaders: true}),
			f.WriteData(1, false, make([]byte, 100)),
		)
	})
	budget := newFrameBudget(FrameLimits{PerSecond: 100, Resets: 2000, PingEvery: time.Minute}, len(fullPreface))
	b.ReportAllocs()
	for b.Loop() {
		budget.sent(answer)
		if budget.received(wire) != "" {
			b.Fatal("over the budget")
		}
	}
}
