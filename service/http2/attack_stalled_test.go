package http2_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// A client that reads nothing cannot make the server queue control frames or responses without a body without bound, also where no
// budget ends the connection (CVE-2019-9512, CVE-2019-9517, GHSA-hrxh-6v49-42gf).
func TestFramesOfStalledClient(t *testing.T) {
	tests := map[string]func(p *peer, i int){
		"PING":     func(p *peer, _ int) { _ = p.fr.WritePing(false, [8]byte{}) },
		"SETTINGS": func(p *peer, _ int) { _ = p.fr.WriteSettings() },
		"malformed requests": func(p *peer, i int) {
			_ = p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: p.block("x", "y")})
		},
		"requests": func(p *peer, i int) {
			synctest.Wait() // no more streams are open than are permitted
			p.headers(uint32(2*i+1), true, "x", strings.Repeat("x", 1000))
		},
		"DATA on a closed stream": func(p *peer, i int) {
			if i == 0 {
				p.headers(1, true)
				_ = p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)
			}
			_ = p.fr.WriteData(1, false, []byte{1})
		},
	}
	noLimits := func(_ *http.Server, o *http2.Options) { o.Frames = http2.FrameLimits{} }
	for name, write := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, e engine, secure bool) {
				if e.name == std.name && name == "SETTINGS" {
					t.Skip("net/http acknowledges many SETTINGS frames with one, so it queues nothing")
				}
				e.inBubble(t, secure, echo, noLimits, func(t *testing.T, dial func() net.Conn) {
					c := dial()
					defer func() { _ = c.Close() }()
					p := newPeer(t, c)
					p.wbuf.WriteString(xhttp2.ClientPreface)
					p.check(p.fr.WriteSettings())
					accepted := 0
					const most = 2 << 20
					for i := 0; accepted < most; i++ {
						write(p, i)
						size := p.wbuf.Len()
						if !p.flush() { // after testTimeout if the server does not read
							break
						}
						accepted += size
					}
					if accepted >= most {
						t.Errorf("the server has read %d bytes of a client that reads nothing", accepted)
					}
				})
			})
		})
	}
}
