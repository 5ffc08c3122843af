package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority for tests.
type Authority struct {
	PEM []byte // CA certificate

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Issued is a PEM certificate with its private key.
type Issued struct{ Cert, Key []byte }

// NewAuthority returns an authority with a self-signed certificate.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{}
	template := newTemplate(t)
	template.Subject.CommonName = "test authority" // must differ from leaf subjects, else OpenSSL takes leaves for self-signed
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	issued, key := a.sign(t, template)
	a.PEM, a.key = issued.Cert, key
	block, _ := pem.Decode(issued.Cert)
	var err error
	if a.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// Server issues a certificate for 127.0.0.1 and userd.test.
func (a *Authority) Server(t testing.TB) Issued {
	t.Helper()
	template := newTemplate(t)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames, template.IPAddresses = []string{"userd.test"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	issued, _ := a.sign(t, template)
	return issued
}

// Client issues a client certificate with a URI SAN, valid for an hour.
func (a *Authority) Client(t testing.TB, name string) Issued {
	t.Helper()
	return a.ClientUntil(t, name, time.Now().Add(time.Hour))
}

// ClientUntil issues a client certificate with a URI SAN, valid until the given time.
func (a *Authority) ClientUntil(t testing.TB, name string, until time.Time) Issued {
	t.Helper()
	uri, err := url.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	template := newTemplate(t)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs, template.NotAfter = []*url.URL{uri}, until
	issued, _ := a.sign(t, template)
	return issued
}

// Trust returns a client configuration that trusts the authority.
func (a *Authority) Trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, ServerName: "userd.test"}
}

// Pair returns the certificate as a tls.Certificate.
func (i Issued) Pair(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(i.Cert, i.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Write writes the certificate and the key to dir. It replaces existing files.
func (i Issued) Write(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	return WriteFile(t, dir, "cert.pem", i.Cert), WriteFile(t, dir, "key.pem", i.Key)
}

// WriteFile writes a file atomically and returns its path.
func WriteFile(t testing.TB, dir, name string, body []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", body, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func newTemplate(t testing.TB) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// sign issues a certificate, self-signed if the authority has none yet.
func (a *Authority) sign(t testing.TB, template *x509.Certificate) (Issued, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Issued{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}, key
}
