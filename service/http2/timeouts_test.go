package http2_test

import (
	"crypto/tls"
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

// inBubble runs a test of timeouts with a fake clock. dial opens an in-memory connection.
func (e engine) inBubble(t *testing.T, secure bool, h http.HandlerFunc, configure serverOption, test func(t *testing.T, dial func() net.Conn)) {
	t.Helper()
	testCertificate() // of no bubble
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := e.startOn(t, l, secure, h, configure)
		test(t, func() net.Conn {
			client, server := net.Pipe()
			l.conns <- server
			if secure {
				return tls.Client(client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			}
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
			own.inBubble(t, false, echo, func(hs *http.Server, _ *http2.Options) { hs.ReadHeaderTimeout = 5 * time.Second },
				func(t *testing.T, dial func() net.Conn) {
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
			own.inBubble(t, false, echo, configure, func(t *testing.T, dial func() net.Conn) {
				start := time.Now()
				p := newPeer(t, dial())
				p.preface()
				if code := p.goAwayWithin(t, 2*time.Minute); code != xhttp2.ErrCodeNo {
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
func (p *peer) goAwayWithin(t *testing.T, d time.Duration) xhttp2.ErrCode {
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
			return code
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
			own.inBubble(t, false, echo, func(hs *http.Server, _ *http2.Options) {
				hs.HTTP2.SendPingTimeout, hs.HTTP2.PingTimeout = time.Minute, 5*time.Second
			}, func(t *testing.T, dial func() net.Conn) {
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

// The time until a connection has sent its preface and SETTINGS is bounded, and only that (CVE-2026-56853).
func TestPrefaceTimeout(t *testing.T) {
	tests := map[string]string{"nothing": "", "part of the preface": "PRI * HT", "no SETTINGS": xhttp2.ClientPreface}
	configure := func(hs *http.Server, _ *http2.Options) { hs.ReadHeaderTimeout = 5 * time.Second }
	for name, start := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, e engine, secure bool) {
				e.inBubble(t, secure, echo, configure, func(t *testing.T, dial func() net.Conn) {
					c := dial()
					defer func() { _ = c.Close() }()
					opened := time.Now()
					if _, err := io.WriteString(c, start); err != nil {
						t.Fatal(err)
					}
					_ = c.SetReadDeadline(opened.Add(time.Minute))
					_, err := io.Copy(io.Discard, c)
					if d := time.Since(opened); d > 13*time.Second { // net/http has 10 seconds over TLS
						t.Errorf("connection ended after %v (%v), want 5s", d, err)
					}
				})
			})
		})
	}
	t.Run("sent", func(t *testing.T) {
		each(t, func(t *testing.T, e engine, secure bool) {
			e.inBubble(t, secure, echo, configure, func(t *testing.T, dial func() net.Conn) {
				p := newPeer(t, dial())
				p.preface()
				time.Sleep(time.Minute) // in the bubble
				p.headers(1, true)
				p.flush()
				if status, _, _ := p.response(1); status != "200" {
					t.Errorf("response after a minute = %s, want 200", status)
				}
				_ = p.conn.Close()
			})
		})
	})
}

// endless is a handler that writes until it fails.
type endless struct {
	written int
	failed  chan error
}

func (h *endless) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	for {
		n, err := w.Write(make([]byte, 16<<10))
		h.written += n
		if err != nil {
			h.failed <- err
			return
		}
	}
}

// start sends a request on a new connection with large windows.
func (h *endless) start(t *testing.T, c net.Conn) {
	h.failed = make(chan error, 1) // of the bubble
	p := newPeer(t, c)
	p.wbuf.WriteString(xhttp2.ClientPreface)
	p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1}))
	p.check(p.fr.WriteWindowUpdate(0, 1<<30))
	p.headers(1, true)
	go p.flush()
}

func writeTimeout(hs *http.Server, _ *http2.Options) { hs.HTTP2.WriteByteTimeout = 15 * time.Second }

// A client that opens its windows but reads nothing is disconnected after the stall timeout, and output for it is
// bounded (CVE-2019-9511, CVE-2019-9517).
func TestStalledConnection(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		var h endless
		e.inBubble(t, secure, h.ServeHTTP, writeTimeout, func(t *testing.T, dial func() net.Conn) {
			c := dial()
			defer func() { _ = c.Close() }()
			start := time.Now()
			h.start(t, c)
			_, _ = io.CopyN(io.Discard, c, 60) // the first frames
			err := <-h.failed
			limit := 20 * time.Second
			if e.name == std.name {
				limit *= 2 // it notices progress at the end of each timeout
			}
			if d := time.Since(start); d < 14*time.Second || d > limit {
				t.Errorf("write failed after %v (%v), want 15s to %v", d, err, limit)
			}
			if most := 512 << 10; h.written > most {
				t.Errorf("written = %d bytes, want at most %d", h.written, most)
			}
		})
	})
}

// A slow client is not disconnected: each byte is progress, over TLS each record.
func TestSlowConnection(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		var h endless
		e.inBubble(t, secure, h.ServeHTTP, writeTimeout, func(t *testing.T, dial func() net.Conn) {
			c := dial()
			h.start(t, c)
			buf := make([]byte, 100)
			if secure {
				buf = make([]byte, 10<<10)
			}
			for range 100 {
				if _, err := io.ReadFull(c, buf); err != nil {
					t.Errorf("slow reader: %v", err)
					break
				}
				time.Sleep(5 * time.Second) // in the bubble
			}
			_ = c.Close()
			if err := <-h.failed; err == nil {
				t.Error("write after the end of the connection succeeded")
			}
		})
	})
}
