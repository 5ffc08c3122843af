package http2_test

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// Buffers of received bodies are reused.
func TestBodyBuffersAreReused(t *testing.T) {
	s := own.start(t, false, func(_ http.ResponseWriter, r *http.Request) {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 8<<10))
		if err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
	})
	client := s.client()
	const size = 32 << 20
	r := get(t, s, "/")
	r.Method, r.ContentLength = http.MethodPost, size
	r.Body = io.NopCloser(io.LimitReader(zeros{}, size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > size { // the race detector makes pools lose buffers
		t.Errorf("allocated = %d bytes for a body of %d, want less", n, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// The rest of a body that a handler does not read keeps no large buffer.
func TestUnreadRestIsSmall(t *testing.T) {
	const streams, size = 90, 60 << 10
	read, release := make(chan bool), make(chan bool)
	s := own.start(t, false, func(_ http.ResponseWriter, r *http.Request) {
		<-release
		if _, err := io.CopyN(io.Discard, r.Body, size-1); err != nil {
			t.Errorf("Read() = %v, want nil", err)
		}
		read <- true
		<-r.Context().Done()
	}, func(_ *http.Server, o *http2.Options) { o.Frames = http2.FrameLimits{} })
	p := s.dial()
	before := heap()
	for i := range streams {
		id := uint32(2*i + 1)
		p.headers(id, false)
		for range 4 {
			p.check(p.fr.WriteData(id, false, make([]byte, size/4)))
		}
		_ = p.fr.WritePing(false, [8]byte{byte(i)})
		p.flush()
		p.await("PING", func(f frame) bool { return f.Type == xhttp2.FramePing && f.ping[0] == byte(i) })
		release <- true
		<-read
	}
	if after := heap(); after > before+streams*16<<10 {
		t.Errorf("heap grew by %d bytes of a stream, want at most 16 KiB", (after-before)/streams)
	}
}

// Declared trailers are kept as long as the handler runs, so they are bounded.
func TestLargeTrailers(t *testing.T) {
	for size, want := range map[int]string{2 << 10: "200", 5 << 10: "reset ENHANCE_YOUR_CALM"} {
		s := own.start(t, false, echo)
		p := s.dial()
		p.headers(1, false, "trailer", "x")
		p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{
			StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: p.block("x", strings.Repeat("x", size)),
		}))
		p.flush()
		if status, _, _ := p.response(1); status != want {
			t.Errorf("status with trailers of %d bytes = %s, want %s", size, status, want)
		}
	}
}

// BenchmarkStalledStreams compares requests beside streams that wait for their windows with those without.
func BenchmarkStalledStreams(b *testing.B) {
	for _, test := range []struct {
		name    string
		stalled int
		window  uint32 // of each stream
	}{{"none", 0, 0}, {"window of the stream", 900, 0}, {"window of the connection", 900, 1 << 20}} {
		b.Run(test.name, func(b *testing.B) {
			s := own.start(b, false, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/body" {
					_, _ = w.Write(make([]byte, 64<<10))
				}
			}, func(hs *http.Server, o *http2.Options) {
				hs.HTTP2.MaxConcurrentStreams, o.Frames = 1000, http2.FrameLimits{}
			})
			p := s.dial()
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: test.window}))
			id := uint32(1)
			for ; id < uint32(2*test.stalled); id += 2 {
				p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{
					StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/body")...),
				}))
				p.flush()
			}
			for b.Loop() {
				p.mu.Lock()
				p.got = nil
				p.mu.Unlock()
				p.headers(id, true)
				p.flush()
				if status, _, _ := p.response(id); status != "200" {
					b.Fatalf("status = %s, want 200", status)
				}
				id += 2
			}
		})
	}
}
