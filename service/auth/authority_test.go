package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	return authority{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}.until(t, time.Now().Add(4*time.Hour))
}

// until returns the authority with a certificate that expires at a time.
func (a authority) until(t *testing.T, expires time.Time) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: expires,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))
	return authority{cert: must(x509.ParseCertificate(der)), key: a.key}
}

func (a authority) issue(t *testing.T, names ...string) *tls.Certificate {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := leaf(time.Now(), names...)
	template.NotBefore, template.NotAfter = time.Time{}, a.cert.NotAfter
	template.SerialNumber, template.ExtKeyUsage = big.NewInt(2), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func parse(t *testing.T, issued *tls.Certificate) *x509.Certificate {
	t.Helper()
	return must(x509.ParseCertificate(issued.Certificate[0]))
}
