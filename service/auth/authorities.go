package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
)

// Authorities are those whose certificates callers may show: a file of certificates in
// PEM, kept up to date. It is safe for use by many goroutines.
type Authorities struct {
	*watched[*x509.CertPool]

	nobody *x509.CertPool
}

// LoadAuthorities reads the file. Its error says what is wrong with it.
func LoadAuthorities(ctx context.Context, opts FileOptions) (*Authorities, error) {
	w, err := watch(ctx, opts, func(body []byte) (*x509.CertPool, error) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(body) {
			return nil, errors.New("there is no certificate in it")
		}
		return pool, nil
	})
	if err != nil {
		return nil, fmt.Errorf("authorities of callers: %w", err)
	}
	return &Authorities{watched: w, nobody: x509.NewCertPool()}, nil
}

// Pool returns the present authorities; none, in a pool that is empty, when they could
// not be read for too long. It is another pool whenever they have changed.
func (a *Authorities) Pool() *x509.CertPool {
	if pool, ok := a.get(); ok {
		return pool
	}
	return a.nobody
}
