package http2_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// onceOpen is a connection that ignores one call of Close.
type onceOpen struct {
	net.Conn

	closes atomic.Int64
}

func (c *onceOpen) Close() error {
	if c.closes.Add(1) == 1 {
		return nil
	}
	return c.Conn.Close()
}

// onceOpenListener makes the connections.
type onceOpenListener struct{ net.Listener }

func (l onceOpenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &onceOpen{Conn: c}, nil
}

// startDetached starts a server of detached connections.
func startDetached(t *testing.T, h http.HandlerFunc) (*testServer, *http2.Server) {
	t.Helper()
	type key struct{}
	base := context.WithValue(t.Context(), key{}, "base")
	var server *http2.Server
	e := engine{"detached", func(hs *http.Server, o http2.Options) { server = http2.Configure(hs, o) }}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := e.startOn(t, onceOpenListener{l}, false, func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(key{}) == nil || r.Context().Value(http.LocalAddrContextKey) == nil {
			t.Error("the context of the request is not of the hook")
		}
		h(w, r)
	}, func(_ *http.Server, o *http2.Options) {
		o.Hooks = func(c net.Conn, _ http2.Control) http2.Hooks {
			once, ok := c.(*onceOpen)
			if !ok {
				t.Errorf("connection is a %T", c)
			}
			file, ok := once.Conn.(syscall.Conn)
			if !ok {
				t.Errorf("connection is a %T", once.Conn)
			}
			raw, err := file.SyscallConn()
			if err != nil {
				t.Error(err)
			}
			return http2.Hooks{Context: base, Raw: func() syscall.RawConn { return raw }}
		}
	})
	t.Cleanup(func() {
		s.close()
		server.Close()
		if err := server.Wait(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Wait() after Close = %v, want nil", err)
		}
	})
	return s, server
}

func TestDetachedConnection(t *testing.T) {
	s, server := startDetached(t, echo)
	p := s.dial()
	for i := range 20 {
		id := uint32(2*i + 1)
		body := make([]byte, 1<<(i%15))
		p.headers(id, false)
		p.check(p.fr.WriteData(id, true, body))
		p.flush()
		if status, got, _ := p.response(id); status != "200" || len(got) != len(body) {
			t.Fatalf("response %d = %s with %d bytes, want 200 with %d", id, status, len(got), len(body))
		}
	}
	if err := s.http.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
	if err := server.Wait(t.Context()); err != nil {
		t.Errorf("Wait() = %v, want nil", err)
	}
	if code, _ := p.goAway(); code != xhttp2.ErrCodeNo {
		t.Errorf("GOAWAY code = %v, want NO_ERROR", code)
	}
}

// Wait waits for streams. Close ends them.
func TestWaitAndClose(t *testing.T) {
	started, ended := make(chan bool), make(chan bool)
	s, server := startDetached(t, func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(ended)
	})
	p := s.dial()
	p.headers(1, true)
	p.flush()
	<-started
	if err := s.http.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Wait(ctx); err == nil {
		t.Error("Wait() = nil while a stream is open")
	}
	server.Close()
	<-ended
	if err := server.Wait(t.Context()); err != nil {
		t.Errorf("Wait() = %v, want nil", err)
	}
}
