package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// NewTransport returns the HTTP transport of a Client to one target, for other services at the same address. Options
// of calls, such as WithTokens and WithRetry, have no effect.
func NewTransport(address string, options ...Option) (*Transport, error) {
	t, err := parseTarget(address)
	if err != nil {
		return nil, err
	}
	return newTransport(newConfig(options), t.endpoint), nil
}

// http1Connections is the default limit of HTTP/1.1 connections to a node.
const http1Connections = 100

// Transport distributes requests to the connections of a node. Close releases them.
type Transport struct {
	connections []*http.Transport // with one HTTP/2 connection each
	next        atomic.Uint64

	mu     sync.Mutex
	open   map[*openConn]struct{}
	closed bool
}

// openConn is a connection until it is closed.
type openConn struct {
	net.Conn

	transport *Transport
}

// Close implements net.Conn.
func (c *openConn) Close() error {
	c.transport.mu.Lock()
	delete(c.transport.open, c)
	c.transport.mu.Unlock()
	return c.Conn.Close()
}

// track keeps a connection until it is closed.
func (t *Transport) track(conn net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	c := &openConn{conn, t}
	t.open[c] = struct{}{}
	return c, nil
}

// Close closes all connections. Their requests fail, and further ones.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	open := slices.Collect(maps.Keys(t.open))
	t.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	t.CloseIdleConnections() // waiting for a connection, or closed ones that are not noticed yet
	return nil
}

func newTransport(c *config, e endpoint) *Transport {
	n, perHost := c.connections, 0
	if c.http1 {
		n, perHost = 1, c.connections
		if perHost == 1 {
			perHost = http1Connections
		}
	}
	var protocols http.Protocols
	protocols.SetHTTP1(c.http1)
	protocols.SetHTTP2(!c.http1)
	protocols.SetUnencryptedHTTP2(!c.http1)
	t := &Transport{open: make(map[*openConn]struct{})}
	for range n {
		t.connections = append(t.connections, &http.Transport{
			Protocols:           &protocols,
			Proxy:               nil,
			TLSClientConfig:     c.tls.Clone(),
			TLSHandshakeTimeout: 5 * time.Second,
			MaxConnsPerHost:     perHost,
			MaxIdleConnsPerHost: perHost,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true, // connect compresses messages
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if e.addr != "" {
					network, addr = e.network, e.addr
				}
				conn, err := c.dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return t.track(conn)
			},
			HTTP2: &http.HTTP2Config{
				SendPingTimeout: c.keepalive, PingTimeout: c.pingTimeout,
				WriteByteTimeout: c.keepalive + c.pingTimeout, StrictMaxConcurrentRequests: true,
			},
		})
	}
	return t
}

// RoundTrip sends a request on the next connection.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = withReadAhead(r)
	if len(t.connections) == 1 {
		return t.connections[0].RoundTrip(r)
	}
	return t.connections[t.next.Add(1)%uint64(len(t.connections))].RoundTrip(r)
}

// CloseIdleConnections closes connections without calls.
func (t *Transport) CloseIdleConnections() {
	for _, connection := range t.connections {
		connection.CloseIdleConnections()
	}
}

// httpClient returns a client that follows no redirects, because a token must reach no other server.
func (t *Transport) httpClient() *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// LoadTLS returns a TLS configuration from PEM files. ca has the authorities of the server; empty: those of the
// system. cert and key are the client certificate; both empty: none. They are read again at each handshake, so that
// they can be renewed.
func LoadTLS(ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca) //nolint:gosec // the caller chooses the file
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificates in PEM", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("a client certificate needs both files, certificate and key")
	}
	if cert == "" {
		return config, nil
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
	return config, nil
}
