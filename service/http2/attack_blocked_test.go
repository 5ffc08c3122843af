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

// Nothing is kept of a stream that waited for the connection when the client reset it.
func TestResetOfBlockedStream(t *testing.T) {
	noLimits := func(_ *http.Server, o *http2.Options) { o.Frames = http2.FrameLimits{} }
	large := strings.Repeat("x", 8<<10)
	respond := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Large", large)
		_, _ = w.Write([]byte{1})
	}
	own.inBubble(t, false, respond, noLimits, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		defer func() { _ = c.Close() }()
		p := newPeer(t, c) // it reads nothing
		p.wbuf.WriteString(xhttp2.ClientPreface)
		p.check(p.fr.WriteSettings())
		before := heap()
		const streams = 3000
		for i := range streams {
			p.headers(uint32(2*i+1), true, "large", large)
			p.flush()
			synctest.Wait() // for the handler
			_ = p.fr.WriteRSTStream(uint32(2*i+1), xhttp2.ErrCodeCancel)
			if !p.flush() {
				t.Fatal("the server does not read")
			}
		}
		if after := heap(); after > before+streams<<10 {
			t.Errorf("heap grew by %d bytes of a stream, want at most 1 KiB", (after-before)/streams)
		}
	})
}
