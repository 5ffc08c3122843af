package main_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"golang.org/x/net/http2"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// flood is a sequence of cheap frames that keeps the server busy.
type flood struct {
	name  string
	cause string // label of the metric and text of GOAWAY
	// begin prepares the connection; again is called repeatedly, with the next stream ID.
	begin func(p *rawPeer) error
	again func(p *rawPeer, id uint32) error
}

func floodsOfFrames() []flood {
	const get, batch = userv1connect.UserServiceGetUserProcedure, userv1connect.UserServiceBatchCreateUsersProcedure
	nothing := func(*rawPeer) error { return nil }
	return []flood{
		{
			"rapid reset", "resets", nothing,
			func(p *rawPeer, id uint32) error {
				return errors.Join(p.open(id, get), p.WriteRSTStream(id, http2.ErrCodeCancel))
			},
		},
		{
			// Resets by the server that the client causes count like its own.
			"made to reset", "resets", nothing,
			func(p *rawPeer, id uint32) error {
				zero := []byte{0, 0, 0, 0}
				return errors.Join(p.open(id, get), p.WriteRawFrame(http2.FrameWindowUpdate, 0, id, zero))
			},
		},
		{
			"resets of a closed stream", "resets",
			func(p *rawPeer) error { return p.open(1, get) },
			func(p *rawPeer, _ uint32) error { return p.WriteRSTStream(1, http2.ErrCodeCancel) },
		},
		{"PING", "pings", nothing, func(p *rawPeer, _ uint32) error { return p.WritePing(false, [8]byte{}) }},
		{"SETTINGS", "settings", nothing, func(p *rawPeer, _ uint32) error {
			return p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
		}},
		{
			"CONTINUATION", "continuations",
			func(p *rawPeer) error {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get)})
			},
			func(p *rawPeer, _ uint32) error { return p.WriteContinuation(1, false, nil) },
		},
		{"WINDOW_UPDATE", "window_updates", nothing, func(p *rawPeer, _ uint32) error { return p.WriteWindowUpdate(0, 1) }},
		{
			"empty DATA", "empty_data",
			func(p *rawPeer) error { return p.open(1, batch) },
			func(p *rawPeer, _ uint32) error { return p.WriteData(1, false, nil) },
		},
		{
			"padding alone", "empty_data",
			func(p *rawPeer) error { return p.open(1, batch) },
			func(p *rawPeer, _ uint32) error { return p.WriteDataPadded(1, false, nil, []byte{}) },
		},
		{
			"DATA of a closed stream", "late_data",
			func(p *rawPeer) error {
				return errors.Join(p.open(1, get), p.WriteRSTStream(1, http2.ErrCodeCancel))
			},
			func(p *rawPeer, _ uint32) error {
				<-p.ahead // net/http closes a connection with too many queued frames
				return p.WriteData(1, false, []byte("12345"))
			},
		},
		{"PRIORITY", "other_frames", nothing, func(p *rawPeer, _ uint32) error {
			return p.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		}},
		{"unknown frames", "other_frames", nothing, func(p *rawPeer, _ uint32) error {
			return p.WriteRawFrame(0xbe, 0, 0, nil)
		}},
		{"unsolicited PING ack", "other_frames", nothing, func(p *rawPeer, _ uint32) error { return p.WritePing(true, [8]byte{}) }},
	}
}

// A connection that floods the server is closed with GOAWAY and the cause, counted and logged,
// and its resources are released.
func TestFloodsOfFrames(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	for _, f := range floodsOfFrames() {
		t.Run(f.name, func(t *testing.T) {
			counter := `userd_connections_goaway_total{reason="` + f.cause + `"}`
			before := x.metric(t, counter)
			x.withstands(t, func(t *testing.T) {
				p := x.peer(t)
				if err := f.begin(p); err != nil {
					t.Fatal(err)
				}
				ended := make(chan *goAwayInfo, 1)
				go func() { ended <- p.end() }()
				sent := 0
				for id := uint32(3); sent < 1_000_000; id += 2 {
					if f.again(p, id) != nil {
						break // the connection is closed
					}
					sent++
				}
				goAway := <-ended
				if goAway == nil || goAway.code != http2.ErrCodeEnhanceYourCalm || goAway.text != "too_many_"+f.cause {
					t.Errorf("GOAWAY after %d frames = %v, want too_many_%s", sent, goAway, f.cause)
				}
				t.Logf("closed after at most %d frames", sent)
			})
			if got := x.metric(t, counter); got != before+1 {
				t.Errorf("%s = %d, want %d", counter, got, before+1)
			}
		})
	}
}

// Frames are counted with TLS, too.
func TestFloodOverTLS(t *testing.T) {
	t.Parallel()
	x := newSecureTarget(t)
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t)
		ended := make(chan *goAwayInfo, 1)
		go func() { ended <- p.end() }()
		for sent := 0; sent < 1_000_000 && p.WritePing(false, [8]byte{}) == nil; {
			sent++
		}
		if last := <-ended; last == nil || *last != (goAwayInfo{http2.ErrCodeEnhanceYourCalm, "too_many_pings"}) {
			t.Errorf("GOAWAY = %v, want too_many_pings", last)
		}
	})
}

// Pings more frequent than --keepalive-min-time on a connection without calls cause the GOAWAY
// that gRPC clients expect.
func TestPingsTooOften(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--keepalive-min-time", "1m")
	p := x.peer(t)
	for pings := 0; ; {
		if err := p.WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
		last := p.awaitPong()
		if pings++; last == nil && pings < 10 {
			continue
		}
		if last == nil || *last != (goAwayInfo{http2.ErrCodeEnhanceYourCalm, "too_many_pings"}) || pings != 4 {
			t.Errorf("GOAWAY at ping %d = %v, want too_many_pings at ping 4", pings, last)
		}
		return
	}
}

// Responses to a client that floods and does not read are not queued without limit.
func TestFloodWithoutReading(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--stall-timeout", "1s", "--keepalive-min-time", "0s", "--max-control-frames", "0")
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t)
		var wire bytes.Buffer
		if err := http2.NewFramer(&wire, nil).WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
		pings := bytes.Repeat(wire.Bytes(), 1000)
		for {
			if _, err := p.conn.Write(pings); err != nil {
				return
			}
		}
	})
}

// A header block without end is rejected at the limit, without decoding it.
func TestEndlessHeaderBlock(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t)
		if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block("/")}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan *goAwayInfo, 1)
		go func() { ended <- p.end() }()
		// A literal header field that fills the frame exactly; other lengths are a protocol error.
		const room, head = 16 << 10, 6
		field := append([]byte{0x00, 1, 'a', 0x7f}, binary.AppendUvarint(nil, room-head-0x7f)...)
		if len(field) != head {
			t.Fatalf("field prefix has %d bytes, want %d", len(field), head)
		}
		field = append(field, bytes.Repeat([]byte("v"), room-head)...)
		sent := 0
		for sent < 1<<30 && p.WriteContinuation(1, false, field) == nil {
			sent += len(field)
		}
		<-ended
		if sent > 16<<20 {
			t.Errorf("server read %d bytes of headers", sent)
		}
	})
}

// DATA frames in flight after a rejected call do not count as a flood.
func TestRejectedUploadsAreNotAFlood(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	p := x.peer(t)
	const uploads, frames = 20, 1000 // less than the connection window in total
	for i := range uint32(uploads) {
		if err := p.open(2*i+1, "/nowhere"); err != nil {
			t.Fatal(err)
		}
		p.awaitReset(t, 2*i+1)
		for range frames {
			if err := p.WriteData(2*i+1, false, make([]byte, 32)); err != nil {
				t.Fatal(err)
			}
		}
	}
	x.checkUsable(t, p, 2*uploads+1)
}

// Frames of ordinary calls do not count as a flood.
func TestBusyClientIsNotAFlood(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--max-control-frames", "1", "--keepalive-min-time", "1h")
	for range 2000 {
		x.get(t)
	}
	stream, err := x.client.BatchCreateUsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndReceive(); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
