package transport

import (
	"crypto/tls"
	"fmt"
	"io"
	"time"
)

// alpnHTTP2 is the name of HTTP/2 in ALPN (RFC 9113, section 3.1).
const alpnHTTP2 = "h2"

// A ProtocolError is a connection over TLS that does not speak the protocol that its
// handshake negotiated, or speaks HTTP/2 with a prohibited cipher suite.
type ProtocolError struct {
	Negotiated string // by ALPN; empty: nothing
	HTTP2      bool   // what the connection speaks
	Cipher     uint16 // a prohibited one; 0: the cipher suite is not the reason
}

// Error says what was spoken, and after which handshake.
func (e *ProtocolError) Error() string {
	switch {
	case e.Cipher != 0:
		return "HTTP/2 must not use the cipher suite " + tls.CipherSuiteName(e.Cipher)
	case e.HTTP2:
		return fmt.Sprintf(`HTTP/2 over TLS needs ALPN "h2", got %q`, e.Negotiated)
	}
	return `expected HTTP/2 after ALPN "h2"`
}

// allows returns an error if a connection over TLS must not speak the protocol that it
// begins with. net/http decides by ALPN too, where it does the handshake itself.
func (s *tlsState) allows(http2 bool) error {
	if s.conn == nil {
		return nil
	}
	state := s.conn.ConnectionState()
	e := &ProtocolError{Negotiated: state.NegotiatedProtocol, HTTP2: http2}
	negotiated := state.NegotiatedProtocol == alpnHTTP2
	if negotiated && prohibited(state) {
		e.Cipher = state.CipherSuite
		return e
	}
	if http2 != negotiated {
		return e
	}
	return nil
}

// prohibited reports whether HTTP/2 must not use the cipher suite (RFC 9113, appendix A).
// Of the suites of TLS 1.2 that crypto/tls has, these are all that are allowed.
func prohibited(state tls.ConnectionState) bool {
	if state.Version >= tls.VersionTLS13 {
		return false
	}
	switch state.CipherSuite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return false
	}
	return true
}

// refuse sends the reason for which a connection is closed, in the protocol that its peer
// speaks, and waits a moment for the peer to read it: a connection that is closed over
// unread bytes takes back what it sent.
func (s *tlsState) refuse(l *Listener, reason error) {
	if l.opts.NotHandshaken != nil {
		l.opts.NotHandshaken(s.conn.RemoteAddr(), reason)
	}
	if s.conn.SetDeadline(time.Now().Add(closeGrace)) != nil {
		return
	}
	e, ok := reason.(*ProtocolError) //nolint:errorlint // allows returns this type
	switch {
	case !ok:
		return
	case e.Cipher != 0:
		_, _ = s.conn.Write(append(emptySettings(), goAway(errInadequateSecurity, e.Error())...))
	case e.HTTP2:
		text := e.Error() + "\n"
		_, _ = fmt.Fprintf(s.conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}
	if s.conn.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(s.conn, drainBytes))
	}
}
