package transport_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/transport"
)

// Each connection over TLS has the same outcome as with a plain net/http server.
func TestNegotiatedProtocolMatchesNetHTTP(t *testing.T) {
	t.Parallel()
	settings := everySuite(t)
	ours, bare := startListener(t, settings), startBare(t, settings)
	for _, c := range tlsClients() {
		for spoken, start := range map[string]string{
			"HTTP/1.1": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"HTTP/2": http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + // SETTINGS
				"\x00\x00\x0e\x01\x05\x00\x00\x00\x01\x82\x87\x84\x41\x09localhost", // GET https://localhost/
		} {
			t.Run(c.name+" and "+spoken, func(t *testing.T) {
				t.Parallel()
				want, got := outcome(t, bare, c.config, start), outcome(t, ours, c.config, start)
				if got != want {
					t.Errorf("outcome = %s, want %s as of net/http", got, want)
				}
				if serves := strings.HasSuffix(got, "200"); serves != (c.allowed[spoken]) {
					t.Errorf("outcome = %s, want a response: %t", got, c.allowed[spoken])
				}
			})
		}
	}
}

type tlsClient struct {
	name    string
	config  *tls.Config
	allowed map[string]bool // by protocol of the connection
}

func tlsClients() (clients []tlsClient) {
	protocols := map[string]map[string]bool{
		"":            {"HTTP/1.1": true},
		"http/1.1":    {"HTTP/1.1": true},
		"h2":          {"HTTP/2": true},
		"h2,http/1.1": {"HTTP/2": true},
		"http/1.1,h2": {"HTTP/2": true}, // the server's preference applies
		"h3":          {},
	}
	for offered, allowed := range protocols {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			clients = append(clients, tlsClient{
				name: fmt.Sprintf("%s with ALPN %q", tls.VersionName(version), offered), allowed: allowed,
				config: &tls.Config{NextProtos: strings.FieldsFunc(offered, func(r rune) bool { return r == ',' }), MinVersion: version, MaxVersion: version},
			})
		}
	}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			continue
		}
		aead := strings.HasPrefix(suite.Name, "TLS_ECDHE_") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "CHACHA20"))
		clients = append(clients, tlsClient{
			name: suite.Name, allowed: map[string]bool{"HTTP/2": aead},
			config: &tls.Config{NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}},
		})
	}
	return clients
}

// outcome returns the result of a connection that starts with these bytes.
func outcome(t *testing.T, addr string, config *tls.Config, start string) string {
	t.Helper()
	config = config.Clone()
	config.InsecureSkipVerify = true
	dialer := tls.Dialer{Config: config, NetDialer: &net.Dialer{Timeout: 20 * time.Second}}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return "no handshake"
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, start); err != nil {
		return "closed"
	}
	reader := bufio.NewReader(conn)
	if status, err := reader.Peek(len("HTTP/1.1 ...")); err == nil && strings.HasPrefix(string(status), "HTTP/1.1 ") {
		return string(status)
	}
	framer := http2.NewFramer(nil, reader)
	for {
		switch frame, err := framer.ReadFrame(); frame := frame.(type) {
		case *http2.GoAwayFrame:
			return "GOAWAY " + frame.ErrCode.String()
		case *http2.HeadersFrame:
			return "HTTP/2 200" // the handler returns no other status
		default:
			if err != nil {
				return "closed"
			}
		}
	}
}

// everySuite returns a server configuration with all cipher suites and a certificate for each key
// type.
func everySuite(t *testing.T) *tls.Config {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		config.CipherSuites = append(config.CipherSuites, suite.ID)
	}
	elliptic, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	factors, err2 := rsa.GenerateKey(rand.Reader, 2048)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der1, err1 := x509.CreateCertificate(rand.Reader, template, template, elliptic.Public(), elliptic)
	der2, err2 := x509.CreateCertificate(rand.Reader, template, template, factors.Public(), factors)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	config.Certificates = []tls.Certificate{
		{Certificate: [][]byte{der1}, PrivateKey: elliptic}, {Certificate: [][]byte{der2}, PrivateKey: factors},
	}
	return config
}

func startListener(t *testing.T, settings *tls.Config) (addr string) {
	t.Helper()
	server := transport.NewServer(guarded(t, respondOK()), transport.ServerOptions{
		MaxConcurrentStreams: 10, Logger: slog.New(slog.DiscardHandler),
	})
	server.ConnContext = transport.ConnContext
	return serveUntilEnd(t, server, func(l net.Listener) error {
		return server.Serve(transport.Listen(l, transport.ListenOptions{StallTimeout: 10 * time.Second, TLS: settings}))
	})
}

// startBare starts a plain net/http server.
func startBare(t *testing.T, settings *tls.Config) (addr string) {
	t.Helper()
	server := &http.Server{
		Handler: respondOK(), TLSConfig: settings.Clone(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	return serveUntilEnd(t, server, func(l net.Listener) error { return server.ServeTLS(l, "", "") })
}

func serveUntilEnd(t *testing.T, server io.Closer, serve func(net.Listener) error) (addr string) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return listener.Addr().String()
}

// respondOK responds with 200, except to an HTTP/2 preface received as an HTTP/1.1 request, which a
// mux rejects.
func respondOK() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "*" {
			http.NewServeMux().ServeHTTP(w, r)
		}
	})
}
