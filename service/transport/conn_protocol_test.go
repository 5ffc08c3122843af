package transport

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// Lines without an HTTP version end the connection; those with one reach net/http, which responds with an error if they
// are invalid.
func TestNotHTTP(t *testing.T) {
	t.Parallel()
	tests := map[string]error{
		"INVALID CONNECTION PREFACE\r\n\r\n": io.EOF,
		"hello\n":                            io.EOF,
		"GET / HTTP/1.1\r\n\r\n":             nil,
		"GET / HTTP/9\r\n\r\n":               nil,
		"PRI * HTTP/2.0\r\n\r\n":             nil,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":   nil,
		"PRI * HTTP/2.0\r\n\r\nGET":          io.EOF,
		"PRI * HTTP/2.0\r\nHost: localhost":  io.EOF,
		"GET /":                              nil,
		"\x16\x03\x01\n TLS":                 nil,
	}
	for start, want := range tests {
		inner, peer := net.Pipe()
		c := newServerConn(inner, Listen(nil, ListenOptions{StallTimeout: stallTimeout}))
		go func() { _, _ = io.WriteString(peer, start) }()
		buf := make([]byte, len(clientPreface)) // the most that net/http reads at first
		n, err := c.Read(buf)
		if !errors.Is(err, want) || want == nil && !strings.HasPrefix(start, string(buf[:n])) {
			t.Errorf("Read(%q) = %q, %v, want error %v", start, buf[:n], err, want)
		}
		if want == nil {
			continue
		}
		if _, err := c.Read(buf); !errors.Is(err, want) {
			t.Errorf("second Read(%q) = %v, want error %v", start, err, want)
		}
	}
}
