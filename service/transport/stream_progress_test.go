package transport_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/yourorg/userservice/service/transport"
)

// A slow reader that makes progress is not aborted, although writing a batch, or a record of TLS, takes longer than the
// stall timeout.
func TestSlowConnectionIsNotStalled(t *testing.T) {
	issuer := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	issuer.Close()
	for name, secure := range map[string]*tls.Config{
		"h2c": nil, "TLS": {Certificates: issuer.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) { testSlowConnection(t, secure) })
	}
}

// slowConn is read in small parts of a batch, a tenth of a stall timeout after each other.
type slowConn struct {
	net.Conn

	pause time.Duration
}

func (c slowConn) Read(p []byte) (int, error) {
	time.Sleep(c.pause)
	return c.Conn.Read(p[:min(len(p), 1<<10)])
}

func testSlowConnection(t *testing.T, secure *tls.Config) {
	synctest.Test(t, func(t *testing.T) {
		const stall, size = time.Second, 512 << 10
		opts := options()
		opts.StallTimeout = stall
		guard := transport.NewGuard(opts)
		defer guard.Close()
		written := make(chan error, 1)
		server := transport.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, size))
			written <- err
		})), transport.ServerOptions{WriteTimeout: stall, Logger: opts.Logger})
		server.ConnContext = transport.ConnContext
		here, there := net.Pipe()
		inner := pipeListener(make(chan net.Conn, 1))
		inner <- there
		serving := make(chan error, 1)
		go func() {
			serving <- server.Serve(transport.Listen(inner, transport.ListenOptions{StallTimeout: stall, TLS: secure}))
		}()
		var client net.Conn = slowConn{here, stall / 10}
		if secure != nil {
			conn := tls.Client(client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err := conn.Handshake(); err != nil { //nolint:noctx // local
				t.Fatal(err)
			}
			client = conn
		}
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, client) })
		ask(t, client)
		if err := <-written; err != nil || guard.StalledWrites() != 0 {
			t.Errorf("Write() = %v with %d stalled writes, want nil and 0", err, guard.StalledWrites())
		}
		_ = here.Close()
		_ = server.Close()
		if err := <-serving; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		reading.Wait()
	})
}

// ask sends an HTTP/2 request with large flow-control windows.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	var wire, block bytes.Buffer
	compressed := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: "/"},
	} {
		_ = compressed.WriteField(f) // into memory
	}
	wire.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&wire, nil)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	_ = framer.WriteWindowUpdate(0, 1<<30)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	if _, err := conn.Write(wire.Bytes()); err != nil {
		t.Fatal(err)
	}
}
