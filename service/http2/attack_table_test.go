package http2_test

import (
	"bytes"
	"fmt"
	"strings"

	xhttp2 "golang.org/x/net/http2"
)

// attack is a known attack on HTTP/2 servers.
type attack struct {
	id   string
	send func(p *peer)
	// want is the debug data of GOAWAY with ENHANCE_YOUR_CALM, the code of another GOAWAY, or "" if the connection stays open.
	want string
}

const floods = 12_000

// repeat writes frames n times, in batches, until the server closes the connection.
func repeat(p *peer, n int, write func(i int)) {
	for i := range n {
		write(i)
		if p.wbuf.Len() > 16<<10 && !p.flush() {
			return
		}
	}
	p.flush()
}

func attacks() []attack {
	get := func(p *peer, id uint32) { p.headers(id, true) }
	return []attack{
		{"CVE-2019-9512 ping flood", func(p *peer) {
			repeat(p, floods, func(int) { _ = p.fr.WritePing(false, [8]byte{}) })
		}, "too_many_pings"},
		{"CVE-2019-9514 reset provoking", func(p *peer) {
			repeat(p, floods, func(i int) { // malformed requests
				_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: p.block("x", "y")})
			})
		}, "too_many_resets"},
		{"CVE-2019-9515 settings flood", func(p *peer) {
			repeat(p, floods, func(int) { _ = p.fr.WriteSettings() })
		}, "too_many_settings"},
		{"CVE-2019-9513 priority churn", func(p *peer) {
			repeat(p, floods, func(i int) { _ = p.fr.WritePriority(uint32(2*i+1), xhttp2.PriorityParam{StreamDep: 0}) })
		}, "too_many_other_frames"},
		{"CVE-2019-9518 empty DATA", func(p *peer) {
			p.headers(1, false)
			repeat(p, floods, func(int) { _ = p.fr.WriteData(1, false, nil) })
		}, "too_many_empty_data"},
		{"CVE-2019-9516 fields without a name", func(p *peer) {
			repeat(p, floods, func(i int) {
				_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: p.block(append(request("GET", "/"), "", "")...)})
			})
		}, "too_many_resets"},
		{"CVE-2020-11080 large SETTINGS", func(p *peer) {
			entries := make([]xhttp2.Setting, 2400)
			for i := range entries {
				entries[i] = xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(i)}
			}
			repeat(p, 1000, func(int) { _ = p.fr.WriteSettings(entries...) })
		}, "too_many_settings"},
		{"CVE-2021-31525 large field value", func(p *peer) {
			_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: p.block(append(request("GET", "/"), "x", strings.Repeat("x", 15<<10))...)})
			repeat(p, 20, func(i int) { _ = p.fr.WriteContinuation(1, i == 19, p.block("x", strings.Repeat("y", 15<<10))) })
		}, "too_many_headers"},
		{"CVE-2023-44487 rapid reset", func(p *peer) {
			repeat(p, floods, func(i int) {
				get(p, uint32(2*i+1))
				_ = p.fr.WriteRSTStream(uint32(2*i+1), xhttp2.ErrCodeCancel)
			})
		}, "too_many_resets"},
		{"CVE-2024-27316 continuation flood", func(p *peer) {
			_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: p.block(request("GET", "/")...)})
			repeat(p, floods, func(int) { _ = p.fr.WriteContinuation(1, false, p.block("a", "b")) })
		}, "too_many_continuations"},
		{"CVE-2026-33871 empty continuations", func(p *peer) {
			_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: p.block(request("GET", "/")...)})
			repeat(p, floods, func(int) { _ = p.fr.WriteContinuation(1, false, nil) })
		}, "too_many_continuations"},
		{"CVE-2025-8671 window overflow", func(p *peer) {
			repeat(p, floods, func(i int) {
				id := uint32(2*i + 1)
				p.headers(id, false)
				_ = p.fr.WriteWindowUpdate(id, 1<<31-1)
			})
		}, "too_many_resets"},
		{"CVE-2025-8671 window increment 0", func(p *peer) {
			repeat(p, floods, func(i int) {
				id := uint32(2*i + 1)
				p.headers(id, false)
				_ = p.fr.WriteRawFrame(xhttp2.FrameWindowUpdate, 0, id, make([]byte, 4))
			})
		}, "too_many_resets"},
		{"CVE-2025-8671 HEADERS after END_STREAM", func(p *peer) {
			repeat(p, floods, func(i int) {
				id := uint32(2*i + 1)
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/wait")...)}))
				p.headers(id, true)
			})
		}, "too_many_resets"},
		{"CVE-2025-8671 DATA after END_STREAM", func(p *peer) {
			repeat(p, floods, func(i int) {
				id := uint32(2*i + 1)
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/wait")...)}))
				_ = p.fr.WriteData(id, true, nil)
			})
		}, "too_many_resets"},
		{"CVE-2025-8671 PRIORITY of 6 bytes", func(p *peer) {
			repeat(p, 10, func(i int) { _ = p.fr.WriteRawFrame(xhttp2.FramePriority, 0, uint32(2*i+1), make([]byte, 6)) })
		}, "FRAME_SIZE_ERROR"},
		{"CVE-2025-8671 self-dependency", func(p *peer) {
			repeat(p, 10, func(i int) { _ = p.fr.WritePriority(uint32(2*i+1), xhttp2.PriorityParam{StreamDep: uint32(2*i + 1)}) })
		}, "PROTOCOL_ERROR"},
		{"CVE-2026-27141 unknown frame types", func(p *peer) {
			repeat(p, 64, func(i int) {
				_ = p.fr.WriteRawFrame(xhttp2.FrameType(0xa+i%6), xhttp2.Flags(i), uint32(i), make([]byte, i))
			})
		}, ""},
		{"unknown frame flood", func(p *peer) {
			repeat(p, floods, func(int) { _ = p.fr.WriteRawFrame(0xfe, 0, 0, nil) })
		}, "too_many_other_frames"},
		{"CVE-2026-33814 SETTINGS_MAX_FRAME_SIZE 0", func(p *peer) {
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 0}))
			p.flush()
		}, "PROTOCOL_ERROR"},
		{"CVE-2026-33186 path without slash", func(p *peer) {
			paths := []string{"x", "", "?a"}
			if p.own { // net/http before Go 1.27 accepts it
				paths = append(paths, "http://a/b")
			}
			for i, path := range paths {
				id := uint32(2*i + 1)
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", path)...)}))
				p.flush()
				if status, _, _ := p.response(id); status == "200" {
					p.t.Errorf("path %q: status = %s, want a reset or an error", path, status)
				}
			}
		}, ""},
		{"CVE-2026-49975 one-byte fields", func(p *peer) {
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}))
			block := p.block(append(request("GET", "/"), "x", "y")...) // "x" is in the table now
			block = append(block, bytes.Repeat(p.block("x", "y"), 10_000)...)
			p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block}))
			p.flush()
			p.await("431", func(f frame) bool { return f.StreamID == 1 && f.fields[":status"] == "431" })
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 65535}))
		}, ""},
		{"CVE-2026-50560 small SETTINGS_MAX_HEADER_LIST_SIZE", func(p *peer) {
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxHeaderListSize, Val: 1}))
			get(p, 1)
			p.flush()
			if status, _, _ := p.response(1); status != "200" {
				p.t.Errorf("status = %s, want 200", status)
			}
		}, ""},
		{"CVE-2026-78659 declared trailers", func(p *peer) {
			p.headers(1, false, "trailer", strings.Repeat("a,", 10_000))
			p.flush()
			if status, _, _ := p.response(1); status != "431" {
				p.t.Errorf("status = %s, want 431", status)
			}
		}, ""},
		{"CVE-2026-78669 changes of SETTINGS_INITIAL_WINDOW_SIZE", func(p *peer) {
			for i := range 90 {
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/wait")...)}))
			}
			repeat(p, floods, func(i int) {
				_ = p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(i)})
			})
		}, "too_many_settings"},
		{"CVE-2026-84304 one-byte DATA", func(p *peer) {
			p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: p.block(request("GET", "/wait")...)}))
			repeat(p, floods, func(int) { _ = p.fr.WriteData(1, false, []byte{1}) })
		}, "too_many_empty_data"},
		{"CVE-2026-93492 large SETTINGS_HEADER_TABLE_SIZE", func(p *peer) {
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 1<<32 - 1}))
			repeat(p, 200, func(i int) {
				id := uint32(2*i + 1)
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", fmt.Sprint("/header/", i))...)}))
				p.flush()
				p.response(id)
			})
		}, ""},
		{"window update flood", func(p *peer) {
			repeat(p, floods, func(int) { _ = p.fr.WriteWindowUpdate(0, 1) })
		}, "too_many_window_updates"},
		{"DATA on closed streams", func(p *peer) {
			get(p, 1)
			p.flush()
			p.response(1)
			repeat(p, 4*floods, func(int) { _ = p.fr.WriteData(1, false, make([]byte, 5)) })
		}, "too_many_late_data"},
	}
}

// unlimitedByStd are the attacks for which net/http has no limit, so the connection stays open.
var unlimitedByStd = map[string]bool{
	"CVE-2019-9513 priority churn": true, "CVE-2019-9515 settings flood": true, "CVE-2025-8671 self-dependency": true,
	"CVE-2026-78669 changes of SETTINGS_INITIAL_WINDOW_SIZE": true, "CVE-2026-84304 one-byte DATA": true, "unknown frame flood": true,
	"window update flood": true,
}

// undecidedByStd are the attacks for which net/http ends the connection if too many responses are queued or too many
// handlers wait, which depends on the time.
var undecidedByStd = map[string]bool{
	"CVE-2019-9512 ping flood": true, "CVE-2019-9514 reset provoking": true, "CVE-2019-9516 fields without a name": true,
	"CVE-2019-9518 empty DATA": true, "CVE-2023-44487 rapid reset": true, "CVE-2025-8671 window overflow": true,
	"CVE-2025-8671 window increment 0": true, "CVE-2025-8671 DATA after END_STREAM": true, "DATA on closed streams": true,
	"CVE-2025-8671 HEADERS after END_STREAM": true,
}
