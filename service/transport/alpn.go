package transport

import (
	"crypto/tls"
	"fmt"
	"io"
	"time"

	"github.com/yourorg/userservice/service/http2"
)

// alpnHTTP2 is the ALPN protocol id of HTTP/2 (RFC 9113, section 3.1).
const alpnHTTP2 = "h2"

// A ProtocolError reports a TLS connection whose protocol differs from the negotiated one, or
// HTTP/2 with a prohibited cipher suite.
type ProtocolError struct {
	Negotiated string // by ALPN; empty: none
	HTTP2      bool   // the connection speaks HTTP/2
	Cipher     uint16 // the prohibited cipher suite; 0: the suite is not the reason
}

func (e *ProtocolError) Error() string {
	switch {
	case e.Cipher != 0:
		return "HTTP/2 must not use the cipher suite " + tls.CipherSuiteName(e.Cipher)
	case e.HTTP2:
		return fmt.Sprintf(`HTTP/2 over TLS needs ALPN "h2", got %q`, e.Negotiated)
	}
	return `expected HTTP/2 after ALPN "h2"`
}

// allows returns an error unless the protocol of a connection matches ALPN. net/http checks the
// same when it does the handshake itself.
func (s *tlsState) allows(isHTTP2 bool) error {
	if s.conn == nil {
		return nil
	}
	state := s.conn.ConnectionState()
	e := &ProtocolError{Negotiated: state.NegotiatedProtocol, HTTP2: isHTTP2}
	negotiated := state.NegotiatedProtocol == alpnHTTP2
	if negotiated && http2.ProhibitedTLS(&state) {
		e.Cipher = state.CipherSuite
		return e
	}
	if isHTTP2 != negotiated {
		return e
	}
	return nil
}

// reject sends the reason in the protocol of the client, then lingers: closing a socket with unread
// input would reset the connection and discard the response.
func (s *tlsState) reject(l *Listener, reason error) {
	if l.opts.OnHandshakeError != nil {
		l.opts.OnHandshakeError(s.conn.RemoteAddr(), reason)
	}
	if s.conn.SetDeadline(time.Now().Add(lingerTimeout)) != nil {
		return
	}
	e, ok := reason.(*ProtocolError) //nolint:errorlint // allows returns this type
	switch {
	case !ok:
		return
	case e.Cipher != 0:
		_, _ = s.conn.Write(goAway(errInadequateSecurity, e.Error()))
	case e.HTTP2:
		text := e.Error() + "\n"
		_, _ = fmt.Fprintf(s.conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}
	if s.conn.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(s.conn, maxLingerBytes))
	}
}
