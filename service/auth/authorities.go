package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// Authorities is the set of CAs that issue client certificates, from a PEM file that Run
// reloads. It is safe for concurrent use.
type Authorities struct {
	*watchedFile[*x509.CertPool]

	empty *x509.CertPool
}

// LoadAuthorities reads the file.
func LoadAuthorities(opts FileOptions) (*Authorities, error) {
	w, err := watchFile(opts, func(body []byte) (*x509.CertPool, error) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(body) {
			return nil, errors.New("expected at least one PEM certificate")
		}
		return pool, nil
	})
	if err != nil {
		return nil, fmt.Errorf("client CAs: %w", err)
	}
	return &Authorities{watchedFile: w, empty: x509.NewCertPool()}, nil
}

// Pool returns the current CAs. It is empty once the file has been unreadable for longer
// than MaxStale. The pointer changes when the CAs change, so it can be used as a cache key.
func (a *Authorities) Pool() *x509.CertPool {
	if pool, ok := a.get(); ok {
		return pool
	}
	return a.empty
}
