package http2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frameScript makes the frames of a random sequence.
type frameScript struct {
	seed, number uint64
	rand         *rand.Rand
	wire, block  bytes.Buffer
	frames       *xhttp2.Framer
	enc          *hpack.Encoder
	next         uint32          // next new stream
	open         []uint32        // streams on which the client can send DATA
	alive        map[uint32]bool // streams that were opened and not reset
	malformed    bool            // there was a malformed request
	id           uint32          // stream of the last frame
}

func newFrameScript(seed, number uint64) *frameScript {
	s := &frameScript{seed: seed, number: number, rand: rand.New(rand.NewPCG(seed, number)), next: 1, alive: make(map[uint32]bool)}
	s.frames = xhttp2.NewFramer(&s.wire, nil)
	s.frames.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	return s
}

func (s *frameScript) one(in int) bool { return s.rand.IntN(in) == 0 }

func pickOf[T any](s *frameScript, values ...T) T { return values[s.rand.IntN(len(values))] }

// stream returns a stream, usually an open one.
func (s *frameScript) stream() uint32 {
	s.id = 1 + uint32(2*s.rand.IntN(max(int(s.next)/2, 1)))
	switch {
	case s.one(200):
		s.id = pickOf[uint32](s, 0, 2, s.next, s.next+10)
	case len(s.open) > 0 && !s.one(40):
		s.id = pickOf(s, s.open...)
	}
	return s.id
}

// close records that the client can no longer send on a stream.
func (s *frameScript) close(id uint32, end bool) {
	if i := slices.Index(s.open, id); end && i >= 0 {
		s.open = slices.Delete(s.open, i, i+1)
	}
}

// step returns the next frame with its description.
func (s *frameScript) step() (name string, wire []byte) {
	s.wire.Reset()
	s.id = 0
	kinds := []struct {
		weight int
		write  func() string
	}{
		{60, s.request}, {10, s.headersAgain}, {60, s.data}, {15, s.reset}, {30, s.window}, {20, s.settings}, {20, s.ping},
		{10, s.priority}, {2, s.goAway}, {20, s.unknown}, {2, s.stray},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	at := s.rand.IntN(total)
	if len(s.open) == 0 && !s.one(10) {
		at = 0 // most frames need a stream
	}
	for ; ; kinds = kinds[1:] {
		if at -= kinds[0].weight; at < 0 {
			name = kinds[0].write()
			return name, bytes.Clone(s.wire.Bytes())
		}
	}
}

// request opens a stream, or rarely a wrong one.
func (s *frameScript) request() string {
	id := s.next
	if s.one(50) {
		id = pickOf(s, s.next+1, 0, s.next+20)
	}
	if id >= s.next {
		s.next = id + 2 - (id+1)%2
	}
	s.id, s.alive[id] = id, true
	path := pickOf(s, "/", "/", "/", "/", "/a", "/early")
	fields := request(pickOf(s, "GET", "POST", "HEAD"), path)
	end := s.one(3)
	kind := "request"
	if s.one(40) {
		kind, s.malformed = "malformed request", true
		fields = pickOf(s, fields[2:], fields[:6], append(fields, "X-Upper", "1"), append(fields, "connection", "close"), append(fields, "te", "gzip"),
			append(fields, "a", "b\n"), append(fields, ":path", "/"), append(fields, ":other", "x"), append(fields, "", "x"))
	}
	if kind == "request" && !end && path != "/early" {
		s.open = append(s.open, id)
	}
	if s.one(10) {
		kind += " with a trailer field"
		fields = append(fields, "trailer", "X-T")
	}
	length := -1
	if s.one(20) {
		kind += " with a length"
		length = s.rand.IntN(4)
		fields = append(fields, "content-length", fmt.Sprint(length))
	}
	text := fmt.Sprintf("%s %d %v length %d end %v", kind, id, fields[:min(6, len(fields))], length, end)
	return text + s.headers(id, end, fields)
}

// headers writes HEADERS, sometimes with padding, a priority or CONTINUATION frames.
func (s *frameScript) headers(id uint32, end bool, fields []string) (text string) {
	s.block.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block := bytes.Clone(s.block.Bytes())
	h := xhttp2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: block}
	if s.one(6) {
		h.PadLength = uint8(1 + s.rand.IntN(20))
		text += " padded"
	}
	if s.one(6) {
		h.Priority = xhttp2.PriorityParam{StreamDep: pickOf[uint32](s, 0, 3, 100), Weight: 1, Exclusive: s.one(2)}
		if s.one(10) {
			h.Priority.StreamDep = id
		}
		if h.Priority.StreamDep == id {
			text += " self-dependent"
		}
	}
	if s.one(6) {
		text += " continued"
		h.EndHeaders = false
		h.BlockFragment = block[:len(block)/2]
		_ = s.frames.WriteHeaders(h)
		if s.one(10) {
			text += " interrupted"
			_ = s.frames.WritePing(false, [8]byte{})
		}
		if s.one(3) {
			_ = s.frames.WriteContinuation(id, false, nil)
		}
		_ = s.frames.WriteContinuation(id, true, block[len(block)/2:])
		return text
	}
	_ = s.frames.WriteHeaders(h)
	return text
}

// headersAgain writes HEADERS on a stream that was opened: trailers.
func (s *frameScript) headersAgain() string {
	id, end := s.stream(), !s.one(8)
	s.close(id, true)
	fields := pickOf(s, []string{"x-t", "1"}, []string{"x-t", "1"}, []string{"x-t", "1"}, []string{"x-t", "1"}, []string{"x-other", "1"}, []string{":path", "/"}, []string{"X-T", "1"}, nil)
	if id >= s.next {
		s.next, s.alive[id] = id+2-(id+1)%2, true
	}
	return fmt.Sprintf("trailers %d %v end %v", id, fields, end) + s.headers(id, end, fields)
}

func (s *frameScript) data() string {
	id, end, size := s.stream(), s.one(3), pickOf(s, 0, 1, 2, 3, 100, 5000)
	s.close(id, end)
	p := make([]byte, size)
	switch {
	case s.one(40):
		_ = s.frames.WriteRawFrame(xhttp2.FrameData, xhttp2.FlagDataPadded, id, pickOf(s, nil, []byte{1}, []byte{5, 1, 2}))
		return fmt.Sprintf("DATA %d with invalid padding", id)
	case s.one(4):
		_ = s.frames.WriteDataPadded(id, end, p, make([]byte, s.rand.IntN(20)))
		return fmt.Sprintf("DATA %d of %d padded end %v", id, size, end)
	}
	_ = s.frames.WriteData(id, end, p)
	return fmt.Sprintf("DATA %d of %d end %v", id, size, end)
}

func (s *frameScript) reset() string {
	id := s.stream()
	s.close(id, true)
	if s.one(30) {
		_ = s.frames.WriteRawFrame(xhttp2.FrameRSTStream, 0, id, make([]byte, 3))
		return fmt.Sprintf("RST_STREAM %d of 3 bytes", id)
	}
	s.alive[id] = false
	_ = s.frames.WriteRSTStream(id, xhttp2.ErrCodeCancel)
	return fmt.Sprintf("RST_STREAM %d", id)
}

func (s *frameScript) window() string {
	id := pickOf(s, 0, s.stream())
	if s.one(40) {
		_ = s.frames.WriteRawFrame(xhttp2.FrameWindowUpdate, 0, id, make([]byte, 5))
		return fmt.Sprintf("WINDOW_UPDATE %d of 5 bytes", id)
	}
	n := pickOf[uint32](s, 1, 100, 70000)
	if s.one(20) {
		n = pickOf[uint32](s, 0, 1<<31-1)
		s.close(id, true)
	}
	_ = s.frames.WriteRawFrame(xhttp2.FrameWindowUpdate, 0, id, binary.BigEndian.AppendUint32(nil, n))
	return fmt.Sprintf("WINDOW_UPDATE %d by %d", id, n)
}

func (s *frameScript) settings() string {
	if s.one(30) {
		switch s.rand.IntN(4) {
		case 0:
			_ = s.frames.WriteRawFrame(xhttp2.FrameSettings, 0, 0, make([]byte, 5))
			return "SETTINGS of 5 bytes"
		case 1:
			_ = s.frames.WriteRawFrame(xhttp2.FrameSettings, 0, 1, nil)
			return "SETTINGS on a stream"
		case 2:
			_ = s.frames.WriteRawFrame(xhttp2.FrameSettings, xhttp2.FlagSettingsAck, 0, make([]byte, 6))
			return "SETTINGS acknowledgment with a payload"
		}
		_ = s.frames.WriteSettingsAck()
		return "SETTINGS acknowledgment"
	}
	var list []xhttp2.Setting
	for range s.rand.IntN(3) {
		set := pickOf(s,
			xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: pickOf[uint32](s, 0, 1, 3, 65535, 1<<20)},
			xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: pickOf[uint32](s, 16384, 1<<24-1)},
			xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: pickOf[uint32](s, 0, 100, 4096, 1<<20)},
			xhttp2.Setting{ID: xhttp2.SettingEnablePush, Val: pickOf[uint32](s, 0, 1)},
			xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1},
			xhttp2.Setting{ID: 0x99, Val: 5},
		)
		if s.one(20) {
			set = pickOf(s, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 31}, xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 100},
				xhttp2.Setting{ID: xhttp2.SettingEnablePush, Val: 2}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
		}
		list = append(list, set)
	}
	_ = s.frames.WriteSettings(list...)
	if len(list) == 2 && list[0].ID == list[1].ID {
		return fmt.Sprint("SETTINGS with a repeated identifier ", list)
	}
	return strings.TrimSpace(fmt.Sprintln("SETTINGS", list))
}

func (s *frameScript) ping() string {
	if s.one(20) {
		_ = s.frames.WriteRawFrame(xhttp2.FramePing, 0, 0, make([]byte, 7))
		return "PING of 7 bytes"
	}
	if s.one(20) {
		_ = s.frames.WriteRawFrame(xhttp2.FramePing, 0, 1, make([]byte, 8))
		return "PING on a stream"
	}
	n, ack := byte(s.rand.IntN(10)), s.one(5)
	_ = s.frames.WritePing(ack, [8]byte{n})
	return fmt.Sprintf("PING %d acknowledgment %v", n, ack)
}

func (s *frameScript) priority() string {
	id := s.stream()
	switch {
	case s.one(15):
		_ = s.frames.WriteRawFrame(xhttp2.FramePriority, 0, id, make([]byte, 4))
		return fmt.Sprintf("PRIORITY %d of 4 bytes", id)
	case s.one(30):
		_ = s.frames.WritePriority(id, xhttp2.PriorityParam{StreamDep: id})
		return fmt.Sprintf("PRIORITY %d on itself", id)
	}
	_ = s.frames.WritePriority(id, xhttp2.PriorityParam{StreamDep: id + 2, Weight: 7})
	return fmt.Sprintf("PRIORITY %d", id)
}

func (s *frameScript) goAway() string {
	if s.one(3) {
		_ = s.frames.WriteRawFrame(xhttp2.FrameGoAway, 0, 1, make([]byte, 8))
		return "GOAWAY on a stream"
	}
	_ = s.frames.WriteGoAway(0, pickOf(s, xhttp2.ErrCodeNo, xhttp2.ErrCodeInternal), []byte("x"))
	return "GOAWAY"
}

func (s *frameScript) unknown() string {
	kind := xhttp2.FrameType(10 + s.rand.IntN(240))
	_ = s.frames.WriteRawFrame(kind, xhttp2.Flags(s.rand.IntN(256)), pickOf(s, 0, s.stream()), make([]byte, s.rand.IntN(20)))
	return fmt.Sprintf("unknown %#x", uint8(kind))
}

// stray writes a frame that a client must not send.
func (s *frameScript) stray() string {
	id := s.stream()
	switch s.rand.IntN(4) {
	case 0:
		_ = s.frames.WriteContinuation(id, true, nil)
		return fmt.Sprintf("CONTINUATION %d alone", id)
	case 1:
		_ = s.frames.WritePushPromise(xhttp2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		return fmt.Sprintf("PUSH_PROMISE %d", id)
	case 2:
		s.wire.Write([]byte{1, 0, 0, byte(xhttp2.FrameData), 0, 0, 0, 0, byte(id)})
		return fmt.Sprintf("DATA %d of 65536", id)
	}
	_ = s.frames.WriteRawFrame(xhttp2.FrameHeaders, xhttp2.FlagHeadersEndHeaders, s.next, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	return fmt.Sprintf("HEADERS %d with an invalid block", s.next)
}
