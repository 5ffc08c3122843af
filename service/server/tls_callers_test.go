package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// mutual is a server with certificate authentication.
type mutual struct {
	*servertest.Server

	authority *servertest.Authority
	dir       string
}

func startMutual(t *testing.T) mutual {
	t.Helper()
	m := mutual{authority: servertest.NewAuthority(t), dir: t.TempDir()}
	cert, key := m.authority.Server(t).Write(t, m.dir)
	rules := servertest.WriteFile(t, m.dir, "rules.json", []byte(`{"rules": [
		{"uri": "spiffe://example.org/*", "permissions": ["users.read", "activities.read", "activities.read_all"]}]}`))
	authorities := servertest.WriteFile(t, m.dir, "ca.pem", m.authority.PEM)
	m.Server = servertest.Start(t, servertest.Parallel(), servertest.Memory(), servertest.Config(func(c *server.Config) {
		c.TLSCert, c.TLSKey, c.TLSClientCA, c.TLSClientRules = cert, key, authorities, rules
	}))
	return m
}

// as returns a client with the certificate, and the number of its connections.
func (m mutual) as(t *testing.T, issued servertest.Issued, http2 bool) (client *http.Client, made *int) {
	t.Helper()
	config := m.authority.Trust()
	pair, made := issued.Pair(t), new(int)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		*made++
		return &pair, nil
	}
	return overTLS(t, m.Server, config, http2), made
}

// A stream ends when the client certificate expires.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, streamEndsWithItsCertificate)
}

func streamEndsWithItsCertificate(t *testing.T) {
	m := startMutual(t)
	until := time.Now().Add(time.Minute)
	client, _ := m.as(t, m.authority.ClientUntil(t, "spiffe://example.org/short", until), true)
	stream, err := userv1connect.NewUserServiceClient(client, "https://userd.test", connect.WithGRPC()).
		StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
	}
	wantError(t, stream.Err(), connect.CodeUnauthenticated, user.CredentialsExpired)
	if early := time.Until(until); early > 0 || early < -time.Second {
		t.Errorf("stream ended %v before the certificate, want 0", early)
	}
	_ = stream.Close()
}

// A CA removed from the file is no longer trusted, also on existing connections.
func TestRemovedCAOnExistingConnection(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { removedCAOnExistingConnection(t, http2) })
	}
}

func removedCAOnExistingConnection(t *testing.T, http2 bool) {
	m := startMutual(t)
	client, made := m.as(t, m.authority.Client(t, "spiffe://example.org/a"), http2)
	if !http2 {
		client.Transport = m.oneConnection(t, client)
	}
	list := func() error {
		_, err := userv1connect.NewUserServiceClient(client, "https://userd.test").ListUsers(t.Context(), &userv1.ListUsersRequest{})
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	servertest.WriteFile(t, m.dir, "ca.pem", servertest.NewAuthority(t).PEM)
	err := list()
	for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); err = list() {
		time.Sleep(time.Second)
	}
	wantError(t, err, connect.CodeUnauthenticated, user.CredentialsInvalid)
	if *made != 1 {
		t.Errorf("HTTP/2 %v: %d connections", http2, *made)
	}
}

// oneConn is a RoundTripper with one HTTP/1.1 connection. http.Transport dials again if its write loop is
// scheduled 50 ms late.
type oneConn struct {
	conn   net.Conn
	reader *bufio.Reader
}

func (m mutual) oneConnection(t *testing.T, client *http.Client) *oneConn {
	t.Helper()
	config := client.Transport.(*http.Transport).TLSClientConfig.Clone() //nolint:errcheck // the type that overTLS uses
	plain, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName = "userd.test"
	conn := tls.Client(plain, config)
	t.Cleanup(func() { _ = conn.Close() })
	return &oneConn{conn: conn, reader: bufio.NewReader(conn)}
}

// RoundTrip makes one request. The previous response body must have been read.
func (c *oneConn) RoundTrip(request *http.Request) (*http.Response, error) {
	var text bytes.Buffer // in one write: the server may respond and close before it has read the body
	if err := request.Write(&text); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(text.Bytes()); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.reader, request)
}
