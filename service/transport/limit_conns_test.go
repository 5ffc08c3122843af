package transport_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
	"github.com/yourorg/userservice/service/transport"
)

// Frame limits apply over TLS, and handlers see Request.TLS.
func TestFrameLimitOverTLS(t *testing.T) {
	t.Parallel()
	issuer := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer issuer.Close()
	known, ok := issuer.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("the client has another transport")
	}
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(chan http2.CloseReason, 1)
	listener := transport.Listen(inner, transport.ListenOptions{
		StallTimeout: 10 * time.Second, Frames: http2.FrameLimits{PerSecond: 10},
		TLS:     &tls.Config{Certificates: issuer.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
		OnClose: func(_ net.Addr, reason http2.CloseReason) { reasons <- reason },
	})
	version := make(chan uint16, 1)
	server := transport.NewServer(guarded(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		version <- r.TLS.Version
	})), transport.ServerOptions{MaxConcurrentStreams: 10, Logger: slog.New(slog.DiscardHandler)})
	server.ConnContext = transport.ConnContext
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()

	secure := known.TLSClientConfig.Clone()
	secure.NextProtos = []string{"h2"}
	dialer := tls.Dialer{Config: secure}
	conn, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, xhttp2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := xhttp2.NewFramer(conn, conn)
	// GET https:// with a one-letter authority, from the static table of HPACK.
	get := []byte{0x82, 0x87, 0x84, 0x01, 1, 'x'}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: get, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	if got := <-version; got < tls.VersionTLS12 {
		t.Errorf("Request.TLS.Version = %x, want TLS 1.2 or later", got)
	}
	go func() {
		for framer.WritePriority(3, xhttp2.PriorityParam{StreamDep: 5}) == nil { // until the connection is closed
			continue
		}
	}()
	if got := <-reasons; got != http2.CloseOtherFrames {
		t.Errorf("OnClose reason = %s, want %s", got, http2.CloseOtherFrames)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("ReadFrame() = %v, want GOAWAY", err)
		}
		if goAway, ok := frame.(*xhttp2.GoAwayFrame); ok {
			if goAway.ErrCode != xhttp2.ErrCodeEnhanceYourCalm {
				t.Errorf("ReadFrame() = %v, want ENHANCE_YOUR_CALM", goAway)
			}
			return
		}
	}
}

func TestPeer(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.1:80":                "192.0.2.1",
		"[::ffff:192.0.2.1]:80":       "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80":   "2001:db8:1:2::",
		"[2001:db8:1:2:ffff::1%x]:80": "2001:db8:1:2::",
		"pipe":                        "invalid IP",
	} {
		if got := transport.Peer(addr); got != want {
			t.Errorf("Peer(%s) = %s, want %s", addr, got, want)
		}
	}
}
