package http2_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// Shutdown waits for streams, and idle connections close.
func TestShutdown(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		started, release := make(chan bool), make(chan bool)
		s := e.start(t, secure, func(w http.ResponseWriter, _ *http.Request) {
			started <- true
			<-release
			_, _ = io.WriteString(w, "done")
		})
		idle, busy := s.dial(), s.dial()
		busy.headers(1, true)
		busy.flush()
		<-started
		ended := make(chan error, 1)
		go func() { ended <- s.http.Shutdown(context.WithoutCancel(t.Context())) }()
		busy.await("GOAWAY", func(f frame) bool { return f.Type == xhttp2.FrameGoAway })
		idle.goAway()
		select {
		case err := <-ended:
			t.Fatalf("Shutdown() = %v before the stream ended", err)
		default:
		}
		close(release)
		if status, body, _ := busy.response(1); status != "200" || body != "done" {
			t.Errorf("response = %s %q, want 200 done", status, body)
		}
		if err := <-ended; err != nil {
			t.Errorf("Shutdown() = %v, want nil", err)
		}
		if code, _ := busy.goAway(); code != xhttp2.ErrCodeNo {
			t.Errorf("GOAWAY code = %v, want NO_ERROR", code)
		}
	})
}

func TestConnState(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		var mu sync.Mutex
		var states []http.ConnState
		closed := make(chan bool)
		s := e.start(t, secure, echo, func(hs *http.Server, _ *http2.Options) {
			hs.ConnState = func(_ net.Conn, state http.ConnState) {
				mu.Lock()
				defer mu.Unlock()
				if states = append(states, state); state == http.StateClosed {
					close(closed)
				}
			}
		})
		p := s.dial()
		p.headers(1, true)
		p.flush()
		p.response(1)
		_ = p.conn.Close()
		<-closed
		mu.Lock()
		defer mu.Unlock()
		states = slices.Compact(states)
		if i := slices.Index(states, http.StateActive); states[0] != http.StateNew || i < 0 || states[len(states)-1] != http.StateClosed {
			t.Errorf("states = %v, want new, active and closed", states)
		}
	})
}

// Requests on one connection do not wait for a response that the client does not read.
func TestStreamsAreIndependent(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				_, _ = w.Write(make([]byte, 1<<20))
				return
			}
			echo(w, r)
		})
		p := s.dial()
		p.check(p.fr.WriteWindowUpdate(0, 1<<20))
		p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: p.block(request("GET", "/large")...)}))
		p.flush()
		received := 0
		p.await("a full window", func(f frame) bool { received += len(f.data); return received == 65535 })
		for id := uint32(3); id < 100; id += 2 {
			p.headers(id, false)
			p.check(p.fr.WriteData(id, true, []byte("x")))
			p.flush()
			if status, body, _ := p.response(id); status != "200" || body != "x" {
				t.Fatalf("response %d = %s %q, want 200 x", id, status, body)
			}
		}
	})
}

// A message is sent whole or not at all: ReserveWindow waits for window.
func TestReserveWindow(t *testing.T) {
	type reserver interface {
		ReserveWindow(n int64) <-chan struct{}
		Progress() int64
		StreamID() uint32
	}
	results := make(chan bool, 10)
	s := own.start(t, false, func(w http.ResponseWriter, r *http.Request) {
		reserve, ok := w.(reserver)
		if !ok || reserve.StreamID() != 1 {
			panic("not a stream of this package")
		}
		message := make([]byte, 30<<10)
		for range 2 {
			results <- reserve.ReserveWindow(int64(len(message))) == nil
			_, _ = w.Write(message)
		}
		_ = http.NewResponseController(w).Flush()
		before := reserve.Progress()
		wake := reserve.ReserveWindow(int64(len(message)))
		results <- wake != nil
		for ; wake != nil; wake = reserve.ReserveWindow(int64(len(message))) {
			select {
			case <-wake:
			case <-r.Context().Done():
			}
		}
		results <- reserve.Progress() != before
	})
	p := s.dial()
	p.headers(1, true)
	p.flush()
	received := 0
	p.await("two messages", func(f frame) bool { received += len(f.data); return received == 60<<10 })
	p.check(p.fr.WriteWindowUpdate(0, 100<<10))
	p.check(p.fr.WriteWindowUpdate(1, 100<<10))
	p.flush()
	for i := range 4 {
		if !<-results {
			t.Errorf("step %d failed", i)
		}
	}
	p.response(1)
}

// Requests whose bodies follow later start although they arrive in one read.
func TestRequestsInOneRead(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, func(w http.ResponseWriter, _ *http.Request) {
			write(w, "x")
		})
		p := s.dial()
		for id := uint32(1); id < 10; id += 2 {
			p.headers(id, false)
		}
		p.flush()
		for id := uint32(1); id < 10; id += 2 {
			if status, body, _ := p.response(id); status != "200" || body != "x" {
				t.Errorf("response %d = %s %q, want 200 x", id, status, body)
			}
		}
	})
}

// A response with Connection: close is the last one of its connection.
func TestConnectionClose(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		p := e.start(t, secure, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
		}).dial()
		p.headers(1, true)
		p.flush()
		if status, _, _ := p.response(1); status != "200" {
			t.Errorf("response = %s, want 200", status)
		}
		if code, _ := p.goAway(); code != xhttp2.ErrCodeNo {
			t.Errorf("GOAWAY code = %v, want NO_ERROR", code)
		}
	})
}

// The last response is sent before a connection closes after GOAWAY.
func TestLastResponseBeforeClose(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		for range 20 {
			started, release := make(chan bool), make(chan bool)
			s := e.start(t, secure, func(w http.ResponseWriter, _ *http.Request) {
				started <- true
				<-release
				write(w, "done")
			})
			p := s.dial()
			p.headers(1, true)
			p.flush()
			<-started
			ended := make(chan error, 1)
			go func() { ended <- s.http.Shutdown(context.WithoutCancel(t.Context())) }()
			if e.name == own.name {
				ping := p.await("PING", func(f frame) bool { return f.Type == xhttp2.FramePing })
				p.check(p.fr.WritePing(true, ping.ping))
				p.flush()
				p.await("the final GOAWAY", func(f frame) bool { return f.Type == xhttp2.FrameGoAway && f.last == 1 })
			}
			close(release)
			if status, body, _ := p.response(1); status != "200" || body != "done" {
				t.Fatalf("response = %s %q, want 200 done", status, body)
			}
			_ = p.conn.Close()
			if err := <-ended; err != nil {
				t.Errorf("Shutdown() = %v, want nil", err)
			}
		}
	})
}

// endingMeter ends its connection when the second header block is complete.
type endingMeter struct {
	http2.Meter

	control http2.Control
	blocks  *int
}

func (m endingMeter) Header(encoded int) error {
	if encoded > 0 {
		return nil
	}
	if *m.blocks++; *m.blocks == 2 {
		m.control.End(http2.CloseMemory)
	}
	return nil
}

// Requests that arrive while their connection is ended are not handled, and GOAWAY says so: the client can repeat them.
func TestRequestsBeforeEnd(t *testing.T) {
	s := own.start(t, false, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") },
		func(_ *http.Server, o *http2.Options) {
			o.Hooks = func(_ net.Conn, control http2.Control) http2.Hooks {
				return http2.Hooks{Meter: endingMeter{control: control, blocks: new(int)}}
			}
		})
	p := s.dial()
	p.headers(1, false) // its body would follow
	p.headers(3, true)
	p.flush()
	goAway := p.await("GOAWAY", func(f frame) bool { return f.Type == xhttp2.FrameGoAway })
	if goAway.last != 0 || goAway.code != xhttp2.ErrCodeEnhanceYourCalm {
		t.Errorf("GOAWAY = stream %d, %v, want stream 0, ENHANCE_YOUR_CALM", goAway.last, goAway.code)
	}
}
