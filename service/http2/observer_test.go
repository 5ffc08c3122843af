package http2_test

import (
	"io"
	"net/http"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// calls records the calls of an observer.
type calls struct {
	waits chan struct{}
	sent  chan struct{}
}

func (o calls) BeforeWait() { o.waits <- struct{}{} }
func (o calls) Sent()       { close(o.sent) }

// An observer is called before a write waits, and when the end of the response was queued or its stream was reset.
func TestObserver(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"window opens": func(p *peer) { p.check(p.fr.WriteWindowUpdate(1, 5)) },
		"reset":        func(p *peer) { p.check(p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)) },
	} {
		t.Run(name, func(t *testing.T) {
			o := calls{make(chan struct{}, 10), make(chan struct{})}
			s := own.start(t, false, func(w http.ResponseWriter, _ *http.Request) {
				stream, ok := w.(interface {
					Observe(o http2.Observer)
				})
				if !ok {
					panic("not a stream of this package")
				}
				stream.Observe(o)
				_, _ = io.WriteString(w, "0123456789")
			})
			p := s.dial()
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 5}))
			p.headers(1, true)
			p.flush()
			p.await("5 bytes", func(f frame) bool { return len(f.data) == 5 }) // the handler has returned
			<-o.waits
			select {
			case <-o.sent:
				t.Error("sent before the end of the response")
			default:
			}
			end(p)
			p.flush()
			<-o.sent
		})
	}
}
