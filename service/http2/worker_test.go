package http2_test

import (
	"net"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// Goroutines of handlers end when they were idle for some seconds, also while connections stay open.
func TestIdleWorkersEnd(t *testing.T) {
	release := make(chan bool)
	handler := func(http.ResponseWriter, *http.Request) { <-release }
	own.inBubble(t, false, handler, func(_ *http.Server, o *http2.Options) { o.Frames = http2.FrameLimits{} }, func(t *testing.T, dial func() net.Conn) {
		release = make(chan bool) // of the bubble
		p := newPeer(t, dial())
		p.preface()
		synctest.Wait()
		before := runtime.NumGoroutine()
		const calls = 100
		for i := range calls {
			p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/")...)}))
		}
		p.flush()
		close(release)
		for i := range calls {
			if status, _, _ := p.response(uint32(2*i + 1)); status != "200" {
				t.Errorf("response = %s, want 200", status)
			}
		}
		time.Sleep(10 * time.Second) // in the bubble
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > before+5 {
			t.Errorf("goroutines after 10 s = %d, want %d", n, before)
		}
		_ = p.conn.Close()
	})
}
