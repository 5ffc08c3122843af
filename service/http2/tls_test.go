package http2_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

// HTTP/2 is not served with the cipher suites of RFC 9113, appendix A.
func TestProhibitedCipherSuite(t *testing.T) {
	prohibited := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	for name, permit := range map[string]bool{"prohibited": false, "permitted": true} {
		t.Run(name, func(t *testing.T) {
			for _, e := range engines {
				t.Run(e.name, func(t *testing.T) {
					s := e.start(t, true, echo, func(hs *http.Server, _ *http2.Options) {
						hs.HTTP2.PermitProhibitedCipherSuites = permit
						hs.TLSConfig.CipherSuites = append([]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, prohibited...)
					})
					dialer := tls.Dialer{Config: &tls.Config{
						InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, CipherSuites: prohibited,
					}}
					c, err := dialer.DialContext(t.Context(), "tcp", s.listen.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					p := newPeer(t, c)
					p.wbuf.WriteString(xhttp2.ClientPreface)
					p.check(p.fr.WriteSettings())
					p.headers(1, true)
					p.flush()
					go p.read()
					if permit {
						if status, _, _ := p.response(1); status != "200" {
							t.Errorf("response = %s, want 200", status)
						}
					} else if code, _ := p.goAway(); code != xhttp2.ErrCodeInadequateSecurity {
						t.Errorf("GOAWAY code = %v, want INADEQUATE_SECURITY", code)
					}
				})
			}
		})
	}
}
