package http2

import "crypto/tls"

// checkTLS returns an error if HTTP/2 prohibits the TLS version or cipher suite (section 9.2).
func (c *conn) checkTLS() error {
	if c.tlsState != nil && !c.srv.anyCipherSuite && ProhibitedTLS(c.tlsState) {
		return connError{errInadequateTLS, "prohibited TLS version or cipher suite"}
	}
	return nil
}

// ProhibitedTLS reports whether HTTP/2 prohibits the TLS version or cipher suite (RFC 9113, section 9.2 and appendix A). The
// listed suites are the only permitted TLS 1.2 suites of crypto/tls.
func ProhibitedTLS(state *tls.ConnectionState) bool {
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
