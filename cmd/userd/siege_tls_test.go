package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// certificateAttacks send client certificates that are expensive to verify.
func certificateAttacks() []attack {
	return []attack{
		{name: "client certificates of many issuers", tls: true, clientCA: true, permissions: []string{"users.read"}, run: func(a *attacker) error {
			cert, err := manyIssuers(200)
			if err != nil {
				return err
			}
			config := &tls.Config{
				InsecureSkipVerify: true,
				// The issuers are not those that the server asks for.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
			}
			return a.repeat(100, func(int) error {
				conn, err := a.dial(0)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }()
				_, err = tls.Client(conn, config).Read(make([]byte, 1))
				return err
			})
		}},
	}
}

// manyIssuers returns a certificate with n certificates of the name of its issuer, none of which has signed it. The server
// verifies up to 100 signatures of P-521.
func manyIssuers(n int) (cert tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return cert, err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return cert, err
	}
	issuer := &x509.Certificate{
		Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SerialNumber: big.NewInt(1),
	}
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: "leaf"}, NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter, SerialNumber: big.NewInt(2),
	}
	cert.PrivateKey = key
	for i := range n + 1 {
		template, by := leaf, signer
		if i > 0 {
			template, by = issuer, key
			issuer.SerialNumber = big.NewInt(int64(i + 2))
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, by)
		if err != nil {
			return cert, err
		}
		cert.Certificate = append(cert.Certificate, der)
	}
	return cert, nil
}
