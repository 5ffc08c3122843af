package transport_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/transport"
)

// A client can make the server verify a hundred signatures, so a handshake runs in the slot of the peer. The slot is released
// while the server waits for the client.
func TestHandshakeRunsInASlot(t *testing.T) {
	t.Parallel()
	issuer := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer issuer.Close()
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheduler := fair.NewScheduler()
	held := make(chan int, 3)
	count := func() {
		n, _, _ := scheduler.Stats()
		held <- n
	}
	verify := func(tls.ConnectionState) error {
		count()
		return nil
	}
	listener := transport.Listen(inner, transport.ListenOptions{
		StallTimeout: 10 * time.Second, Scheduler: scheduler,
		TLS: &tls.Config{
			Certificates: issuer.TLS.Certificates, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequestClientCert, VerifyConnection: verify,
		},
	})
	defer func() { _ = listener.Close() }()
	go func() { // a server
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Read(make([]byte, 1))
			count()
			_ = conn.Close()
		}
	}()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, VerifyConnection: verify}}
	conn, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte{'G'}); err != nil {
		t.Fatal(err)
	}
	got := []int{<-held, <-held, <-held}
	if want := []int{0, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("slots held while the client verifies, while the server does, after the handshake: %v, want %v", got, want)
	}
}

// closingListener accepts a connection that is closed while the server reads from it.
type closingListener struct {
	net.Listener

	conn chan net.Conn // the connection as the server sees it
}

func (l closingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &closingConn{Conn: conn, conn: l.conn}, err
}

type closingConn struct {
	net.Conn

	conn chan net.Conn
}

func (c *closingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		_ = (<-c.conn).Close()
	}
	return n, err
}

// A handshake that waits for its slot when its connection is closed ends: it would run without a slot.
func TestHandshakeEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	listener := transport.Listen(closingListener{inner, accepted}, transport.ListenOptions{
		StallTimeout: 10 * time.Second, Scheduler: fair.NewScheduler(),
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			t.Error("the handshake continued after its connection was closed")
			return nil, nil
		}},
	})
	defer func() { _ = listener.Close() }()
	go func() {
		// The server gets a small ClientHello with one read.
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}}
		_, _ = dialer.DialContext(t.Context(), "tcp", inner.Addr().String()) // it fails
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted <- conn
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("Read = %d, nil, want an error", n)
	}
}
