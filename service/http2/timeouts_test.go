package http2_test

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// pipes is a listener of in-memory connections, for tests with a fake clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs a test of timeouts with a fake clock.
func inBubble(t *testing.T, h http.HandlerFunc, configure serverOption, test func(t *testing.T, s *testServer, dial func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := own.startOn(t, l, false, h, configure)
		test(t, s, func() net.Conn {
			client, server := net.Pipe()
			l.conns <- server
			return client
		})
		s.close()
	})
}

func TestHeaderTimeout(t *testing.T) {
	tests := map[string]func(p *peer){
		"no SETTINGS": func(*peer) {},
		"incomplete block": func(p *peer) {
			p.check(p.fr.WriteSettings())
			p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: p.block(request("GET", "/")...)}))
		},
		"incomplete CONTINUATION": func(p *peer) {
			p.check(p.fr.WriteSettings())
			p.wbuf.Write([]byte{0, 0, 100, byte(xhttp2.FrameContinuation), 0, 0, 0, 0, 1, 0x82})
		},
		"incomplete frame": func(p *peer) {
			p.check(p.fr.WriteSettings())
			p.wbuf.Write([]byte{0, 0, 100, byte(xhttp2.FrameHeaders), 0, 0, 0, 0, 1, 0x82})
		},
	}
	for name, send := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, echo, func(hs *http.Server, _ *http2.Options) { hs.ReadHeaderTimeout = 5 * time.Second },
				func(t *testing.T, _ *testServer, dial func() net.Conn) {
					start := time.Now()
					p := newPeer(t, dial())
					p.wbuf.WriteString(xhttp2.ClientPreface)
					send(p)
					go p.read()
					p.flush()
					if code, debug := p.goAway(); code != xhttp2.ErrCodeEnhanceYourCalm || debug != "header timeout" {
						t.Errorf("GOAWAY = %v %q, want ENHANCE_YOUR_CALM, header timeout", code, debug)
					}
					if d := time.Since(start); d < 5*time.Second || d > 8*time.Second {
						t.Errorf("closed after %v, want 5s", d)
					}
				})
		})
	}
}

func TestIdleTimeoutAndAge(t *testing.T) {
	tests := map[string]serverOption{
		"idle": func(hs *http.Server, _ *http2.Options) { hs.IdleTimeout = time.Minute },
		"age":  func(_ *http.Server, o *http2.Options) { o.MaxAge = time.Minute },
	}
	for name, configure := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, echo, configure, func(t *testing.T, _ *testServer, dial func() net.Conn) {
				start := time.Now()
				p := newPeer(t, dial())
				p.preface()
				if code, _ := p.goAwayWithin(t, 2*time.Minute); code != xhttp2.ErrCodeNo {
					t.Errorf("GOAWAY code = %v, want NO_ERROR", code)
				}
				if d := time.Since(start); d < 54*time.Second || d > 70*time.Second {
					t.Errorf("closed after %v, want about a minute", d)
				}
			})
		})
	}
}

// goAwayWithin is goAway with a timeout.
func (p *peer) goAwayWithin(t *testing.T, d time.Duration) (xhttp2.ErrCode, string) {
	t.Helper()
	timer := time.AfterFunc(d, func() { _ = p.conn.Close() })
	defer timer.Stop()
	var code xhttp2.ErrCode = 1 << 31
	for i := 0; ; i++ {
		p.mu.Lock()
		for i == len(p.got) && p.err == nil {
			p.changed.Wait()
		}
		if i == len(p.got) {
			p.mu.Unlock()
			return code, ""
		}
		if f := p.got[i]; f.Type == xhttp2.FrameGoAway {
			code = f.code
		}
		p.mu.Unlock()
	}
}

// A client that does not acknowledge a ping is disconnected; one that does is not.
func TestKeepalive(t *testing.T) {
	for name, acknowledge := range map[string]bool{"acknowledged": true, "not acknowledged": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, echo, func(hs *http.Server, _ *http2.Options) {
				hs.HTTP2.SendPingTimeout, hs.HTTP2.PingTimeout = time.Minute, 5*time.Second
			}, func(t *testing.T, _ *testServer, dial func() net.Conn) {
				start := time.Now()
				p := newPeer(t, dial())
				p.preface()
				for range 3 {
					n := 0
					if _, ok := p.findNext(&n, 65*time.Second); !ok {
						break
					}
					if !acknowledge {
						continue
					}
					_ = p.fr.WritePing(true, [8]byte{'k', 'e', 'e', 'p', 'i', 'n', 'g'})
					p.flush()
				}
				if d := time.Since(start); acknowledge && d < 3*time.Minute || !acknowledge && d > 66*time.Second {
					t.Errorf("connection ended after %v", d)
				}
			})
		})
	}
}

// findNext waits for a further PING; false if the connection ends.
func (p *peer) findNext(_ *int, d time.Duration) (frame, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	timer := time.AfterFunc(d, p.changed.Broadcast)
	defer timer.Stop()
	end := time.Now().Add(d)
	for {
		for i, f := range p.got {
			if f.Type == xhttp2.FramePing {
				p.got = p.got[i+1:]
				return f, true
			}
		}
		if p.err != nil || !time.Now().Before(end) {
			return frame{}, false
		}
		p.changed.Wait()
	}
}

// A client that opens its windows but reads nothing is disconnected after the stall timeout, and output for it is
// bounded (CVE-2019-9511, CVE-2019-9517). A slow one is not disconnected.
func TestStalledConnection(t *testing.T) {
	written := 0
	var failed chan error // made in the bubble
	handler := func(w http.ResponseWriter, _ *http.Request) {
		for {
			n, err := w.Write(make([]byte, 16<<10))
			written += n
			if err != nil {
				failed <- err
				return
			}
		}
	}
	configure := func(hs *http.Server, _ *http2.Options) { hs.HTTP2.WriteByteTimeout = 15 * time.Second }
	t.Run("stalled", func(t *testing.T) {
		written = 0
		inBubble(t, handler, configure, func(t *testing.T, _ *testServer, dial func() net.Conn) {
			failed = make(chan error, 1)
			c := dial()
			defer func() { _ = c.Close() }()
			p := newPeer(t, c)
			start := time.Now()
			go discardAfter(c, 60) // the first frames
			p.wbuf.WriteString(xhttp2.ClientPreface)
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1}))
			p.check(p.fr.WriteWindowUpdate(0, 1<<30))
			p.headers(1, true)
			p.flush()
			err := <-failed
			if d := time.Since(start); d < 14*time.Second || d > 20*time.Second {
				t.Errorf("write failed after %v (%v), want 15s", d, err)
			}
			if most := 512 << 10; written > most {
				t.Errorf("written = %d bytes, want at most %d", written, most)
			}
		})
	})
	t.Run("slow", func(t *testing.T) {
		inBubble(t, handler, configure, func(t *testing.T, _ *testServer, dial func() net.Conn) {
			failed = make(chan error, 1)
			c := dial()
			p := newPeer(t, c)
			p.wbuf.WriteString(xhttp2.ClientPreface)
			p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1}))
			p.check(p.fr.WriteWindowUpdate(0, 1<<30))
			p.headers(1, true)
			go func() { p.flush() }()
			buf := make([]byte, 100)
			for range 100 { // 100 bytes each 5 seconds
				if _, err := io.ReadFull(c, buf); err != nil {
					t.Errorf("slow reader: %v", err)
					break
				}
				time.Sleep(5 * time.Second) // in the bubble
			}
			_ = c.Close()
			if err := <-failed; err == nil {
				t.Error("write after the end of the connection succeeded")
			}
		})
	})
}

func discardAfter(c net.Conn, n int64) { _, _ = io.CopyN(io.Discard, c, n) }
