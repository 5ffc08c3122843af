package http2_test

import (
	"net"
	"net/http"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// A connection is idle again after streams that ended before their handlers ran.
func TestIdleAfterStreamsWithoutHandler(t *testing.T) {
	idle := func(hs *http.Server, _ *http2.Options) { hs.IdleTimeout = time.Minute }
	tests := map[string]func(p *peer){
		"reset": func(p *peer) {
			p.headers(1, false)
			_ = p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)
		},
		"body longer than its length": func(p *peer) {
			p.headers(1, false, "content-length", "1")
			_ = p.fr.WriteData(1, true, []byte("xx"))
		},
	}
	for name, send := range tests {
		t.Run(name, func(t *testing.T) {
			own.inBubble(t, false, echo, idle, func(t *testing.T, dial func() net.Conn) {
				p := newPeer(t, dial())
				p.preface()
				start := time.Now()
				send(p)
				p.flush()
				if code := p.goAwayWithin(t, 3*time.Minute); code != xhttp2.ErrCodeNo {
					t.Errorf("GOAWAY code = %v, want NO_ERROR", code)
				}
				if d := time.Since(start); d > 70*time.Second {
					t.Errorf("closed after %v, want about a minute", d)
				}
			})
		})
	}
}
