package http2_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// attackHandler waits for the end of requests of /wait, and sends a large header for /header/.
func attackHandler(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/wait":
		<-r.Context().Done()
	case strings.HasPrefix(r.URL.Path, "/header/"):
		w.Header().Set("X-Large", strings.Repeat(r.URL.Path, 500))
	}
}

// A known attack costs little memory, does not affect other connections, and ends the connection where it can be told from normal use.
// net/http ends it too, unless it has no such limit.
func TestAttacks(t *testing.T) {
	for _, a := range attacks() {
		t.Run(a.id, func(t *testing.T) {
			each(t, func(t *testing.T, e engine, secure bool) {
				s := e.start(t, secure, attackHandler)
				before := heap()
				p := s.dial()
				a.send(p)
				if after := heap(); after > before+16<<20 {
					t.Errorf("heap grew by %d bytes, want at most 16 MiB", after-before)
				}
				if e.name == own.name {
					checkOutcome(t, p, a.want)
				} else if want := a.want == "" || unlimitedByStd[a.id]; !undecidedByStd[a.id] && p.open() != want {
					t.Errorf("connection open = %v, want %v; received %v, %v", !want, want, p.got[max(len(p.got)-2, 0):], p.err)
				}
				if got := describe(s.client(), get(t, s, "/")); !strings.HasPrefix(got, "200") {
					t.Errorf("response on another connection = %q, want 200", got)
				}
			})
		})
	}
}

func checkOutcome(t *testing.T, p *peer, want string) {
	t.Helper()
	if want == "" {
		if !p.open() {
			t.Errorf("connection ended with %v, want open", p.err)
		}
		return
	}
	code, debug := p.goAway()
	if code != xhttp2.ErrCodeEnhanceYourCalm {
		debug = code.String()
	}
	if debug != want {
		t.Errorf("GOAWAY = %q (%v), want %q; connection error %v", debug, code, want, p.err)
	}
}

// open reports whether the connection is open, without GOAWAY, after everything that was sent so far.
func (p *peer) open() bool {
	last := [8]byte{'l', 'a', 's', 't'}
	_ = p.fr.WritePing(false, last)
	p.flush()
	f, ok := p.find(func(f frame) bool {
		return f.Type == xhttp2.FrameGoAway && f.code != xhttp2.ErrCodeNo || f.Type == xhttp2.FramePing && f.ping == last
	})
	return ok && f.Type == xhttp2.FramePing
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func get(t *testing.T, s *testServer, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Running handlers are bounded, also if their streams are reset (CVE-2023-39325), and so are open streams (CVE-2026-47244).
func TestConcurrentStreams(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		const limit = 10
		var running, most atomic.Int64
		release := make(chan bool)
		s := e.start(t, secure, func(http.ResponseWriter, *http.Request) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-release
			running.Add(-1)
		}, func(hs *http.Server, _ *http2.Options) { hs.HTTP2.MaxConcurrentStreams = limit })
		p := s.dial()
		for i := range 30 {
			p.headers(uint32(2*i+1), true)
			_ = p.fr.WriteRSTStream(uint32(2*i+1), xhttp2.ErrCodeCancel)
			p.flush()
		}
		for i := range limit + 1 {
			p.headers(uint32(2*i+101), true)
		}
		p.flush()
		status, _, _ := p.response(2*limit + 101)
		if !strings.HasPrefix(status, "reset") {
			t.Errorf("stream over the limit = %s, want a reset", status)
		}
		close(release)
		for i := range limit {
			if status, _, _ := p.response(uint32(2*i + 101)); status != "200" {
				t.Errorf("stream %d = %s, want 200", i, status)
			}
		}
		if n := most.Load(); n > limit {
			t.Errorf("running handlers = %d, want at most %d", n, limit)
		}
	})
}

// A fatal error does not preempt a shutdown (CVE-2022-27664).
func TestErrorDuringShutdown(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, attackHandler)
		p := s.dial()
		p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/wait")...)}))
		p.flush()
		ended := make(chan error, 1)
		go func() { ended <- s.http.Shutdown(t.Context()) }()
		p.await("GOAWAY", func(f frame) bool { return f.Type == xhttp2.FrameGoAway })
		_ = p.fr.WriteRawFrame(xhttp2.FramePing, 0, 0, nil) // wrong length
		p.flush()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Shutdown() = %v, want nil", err)
			}
		case <-time.After(testTimeout):
			t.Error("Shutdown does not return")
		}
	})
}

// The upgrade of RFC 7540 is not supported (CVE-2022-41721).
func TestNoUpgrade(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			s := e.start(t, false, echo)
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.listen.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
			response, _ := io.ReadAll(c)
			if !bytes.HasPrefix(response, []byte("HTTP/1.1 200")) {
				t.Errorf("response = %.40q, want HTTP/1.1 200", response)
			}
		})
	}
}

// Names of header fields are not kept (CVE-2021-44716, CVE-2022-41717).
func TestManyFieldNames(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, attackHandler)
		p := s.dial()
		before := heap()
		for i := range 250 {
			id := uint32(2*i + 1)
			var fields []string
			for j := range 50 {
				fields = append(fields, fmt.Sprintf("x-%d-%d-%s", i, j, strings.Repeat("n", 400)), "v")
			}
			p.headers(id, true, fields...)
			p.flush()
			if status, _, _ := p.response(id); status != "200" {
				t.Fatalf("response %d = %s, want 200", i, status)
			}
			p.mu.Lock()
			p.got = nil
			p.mu.Unlock()
		}
		if after := heap(); after > before+4<<20 {
			t.Errorf("heap grew by %d bytes, want at most 4 MiB", after-before)
		}
	})
}

// Flow-control credit is returned once for each byte, also after a reset during reads (CVE-2026-78663).
func TestCreditIsReturnedOnce(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, func(_ http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 100)
			for {
				if _, err := r.Body.Read(buf); err != nil {
					return
				}
			}
		})
		p := s.dial()
		sent := 0
		for i := range 300 {
			id := uint32(2*i + 1)
			p.headers(id, false)
			size := 1 << 10
			sent += size
			p.check(p.fr.WriteData(id, false, make([]byte, size)))
			_ = p.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel)
			p.flush()
		}
		_ = p.fr.WritePing(false, [8]byte{1})
		p.flush()
		p.await("PING", func(f frame) bool { return f.Type == xhttp2.FramePing })
		p.mu.Lock()
		defer p.mu.Unlock()
		returned := 65535 - 256<<10
		for _, f := range p.got {
			if f.StreamID == 0 {
				returned += int(f.window)
			}
		}
		if returned > sent {
			t.Errorf("credit returned = %d bytes, sent %d", returned, sent)
		}
	})
}

// The HPACK encoder is used by many handlers while its table changes (CVE-2026-97032, of which net/http before
// Go 1.26.11 has the race).
func TestEncoderWhileTableChanges(t *testing.T) {
	for name, secure := range map[string]bool{"h2c": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := own.start(t, secure, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Path", r.URL.Path)
				w.Header().Set(http.TrailerPrefix+"X-End", r.URL.Path)
				_, _ = io.WriteString(w, "x")
			})
			p := s.dial()
			var wait sync.WaitGroup
			for i := range 1000 {
				id := uint32(2*i + 1)
				path := fmt.Sprint("/", i%50)
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", path)...)}))
				if i%20 == 0 {
					p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: uint32(i % 3 * 1000)}))
				}
				p.flush()
				if i%50 == 49 {
					for j := i - 49; j <= i; j++ {
						wait.Go(func() {
							status, body, trailers := p.response(uint32(2*j + 1))
							if want := fmt.Sprint("/", j%50); status != "200" || body != "x" || trailers["x-end"] != want {
								t.Errorf("response = %s %q %v, want 200 x and trailer %s", status, body, trailers, want)
							}
						})
					}
					wait.Wait()
				}
			}
		})
	}
}

// Decoding is linear (CVE-2022-41723): a long field in many fragments takes no time of its own.
func TestFragmentedField(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			s := e.start(t, false, attackHandler)
			p := s.dial()
			block := p.block(append(request("GET", "/"), "x", strings.Repeat("x", 20<<10))...)
			_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: block[:10]})
			for block = block[10:]; len(block) > 0; {
				n := min(len(block), 1<<10)
				_ = p.fr.WriteContinuation(1, n == len(block), block[:n])
				block = block[n:]
			}
			p.flush()
			if status, _, _ := p.response(1); status != "200" {
				t.Errorf("status = %s, want 200", status)
			}
		})
	}
}

// A path over the limit is answered with 431 too if the client sends other pseudo-header fields after it.
func TestLargePath(t *testing.T) {
	s := own.start(t, false, attackHandler)
	p := s.dial()
	block := p.block(":authority", "example.com", ":method", "GET", ":path", "/"+strings.Repeat("x", 40<<10), ":scheme", "http")
	p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: block[:16<<10]}))
	for block = block[16<<10:]; len(block) > 0; {
		n := min(len(block), 16<<10)
		p.check(p.fr.WriteContinuation(1, n == len(block), block[:n]))
		block = block[n:]
	}
	p.flush()
	if status, _, _ := p.response(1); status != "431" {
		t.Errorf("status = %s, want 431", status)
	}
}

// A header list over a limit fails its stream only.
func TestLargeHeaderLists(t *testing.T) {
	tests := map[string][]string{
		"bytes":  {"a", strings.Repeat("a", 11<<10), "b", strings.Repeat("b", 11<<10), "c", strings.Repeat("c", 11<<10)},
		"fields": strings.Split(strings.Repeat("a,b,", 101)+"a,b", ","),
	}
	for name, fields := range tests {
		t.Run(name, func(t *testing.T) {
			s := own.start(t, false, attackHandler)
			p := s.dial()
			block := p.block(append(request("GET", "/"), fields...)...)
			first := block[:min(len(block), 16<<10)]
			p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: len(first) == len(block), BlockFragment: first}))
			if rest := block[len(first):]; len(rest) > 0 {
				p.check(p.fr.WriteContinuation(1, true, rest))
			}
			p.headers(3, true)
			p.flush()
			if status, _, _ := p.response(1); status != "431" {
				t.Errorf("status = %s, want 431", status)
			}
			if status, _, _ := p.response(3); status != "200" {
				t.Errorf("status of the next stream = %s, want 200", status)
			}
		})
	}
}
