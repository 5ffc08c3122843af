package http2_test

import (
	"io"
	"net/http"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// released is closed by Release.
type released chan struct{}

func (r released) Release() { close(r) }

// What a response holds is released when its end was queued, or its stream was reset.
func TestHoldUntilSent(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"window opens": func(p *peer) { p.check(p.fr.WriteWindowUpdate(1, 5)) },
		"reset":        func(p *peer) { p.check(p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)) },
	} {
		t.Run(name, func(t *testing.T) {
			held := make(released)
			s := own.start(t, false, func(w http.ResponseWriter, _ *http.Request) {
				stream, ok := w.(interface {
					HoldUntilSent(held interface{ Release() })
				})
				if !ok {
					panic("not a stream of this package")
				}
				stream.HoldUntilSent(held)
				_, _ = io.WriteString(w, "0123456789")
			})
			p := s.dial()
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 5}))
			p.headers(1, true)
			p.flush()
			p.await("5 bytes", func(f frame) bool { return len(f.data) == 5 }) // the handler has returned
			select {
			case <-held:
				t.Error("released before the end of the response")
			default:
			}
			end(p)
			p.flush()
			<-held
		})
	}
}
