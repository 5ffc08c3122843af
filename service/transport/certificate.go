package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certificateRefresh is how often the files are looked at.
const certificateRefresh = 5 * time.Second

// CertificatesOptions say where the certificates of a server are.
type CertificatesOptions struct {
	// Cert and Key are PEM files: the chain, the server's own certificate first, and
	// its key. Required.
	Cert, Key string
	// ClientCAs gives the authorities whose certificates callers may show, for each
	// handshake. nil: callers are asked for none.
	ClientCAs func() *x509.CertPool
	// Refresh is how often the files are looked at. 0: 5 s.
	Refresh time.Duration
	Logger  *slog.Logger // required
}

// Certificates are a server's certificate, kept up to date. It is safe for use by many
// goroutines.
//
// New files serve the handshakes that begin after they were read; connections that
// stand are left alone. Files that do not fit together, which is how it looks while they
// are being replaced, change nothing and are looked at again.
type Certificates struct {
	opts    CertificatesOptions
	current atomic.Pointer[tls.Config]
	digest  [sha256.Size]byte // of what was last looked at; Run's own once it runs
}

// LoadCertificates reads the files. Its error says which of them cannot be used.
func LoadCertificates(ctx context.Context, opts CertificatesOptions) (*Certificates, error) {
	if opts.Refresh == 0 {
		opts.Refresh = certificateRefresh
	}
	c := &Certificates{opts: opts}
	if _, err := c.read(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Run reads the files again when they change, until the context ends.
func (c *Certificates) Run(ctx context.Context) {
	ticker := time.NewTicker(c.opts.Refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := c.read(ctx); {
		case err != nil:
			c.opts.Logger.LogAttrs(ctx, slog.LevelError, "the certificates could not be read; the old ones stay",
				slog.Any("error", err))
		case changed:
			c.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "the certificates have changed")
		}
	}
}

// Config returns the settings of a server that uses the present certificates for each
// handshake: TLS 1.2 and up, HTTP/2 before HTTP/1.1. A caller's certificate is asked
// for and verified where there are authorities, but need not be shown.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if c.opts.ClientCAs == nil {
				return c.current.Load(), nil
			}
			return askForCertificates(c.current.Load(), c.opts.ClientCAs()), nil
		},
	}
}

// read makes what the files hold the present settings, if it is something else than at
// the last look. What cannot be used is an error once, until it changes.
func (c *Certificates) read(ctx context.Context) (changed bool, err error) {
	var files [2][]byte
	for i, path := range []string{c.opts.Cert, c.opts.Key} {
		if files[i], err = os.ReadFile(path); err != nil { //nolint:gosec // the operator names the file
			return false, err
		}
	}
	digest := sha256.Sum256(bytes.Join(files[:], []byte{0}))
	if digest == c.digest {
		return false, nil
	}
	c.digest = digest
	config, err := newTLSConfig(files[0], files[1])
	if err != nil {
		return false, fmt.Errorf("%s with %s: %w", c.opts.Cert, c.opts.Key, err)
	}
	if leaf := config.Certificates[0].Leaf; leaf != nil && time.Now().After(leaf.NotAfter) {
		c.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "the server's certificate has expired", slog.Time("expired", leaf.NotAfter))
	}
	c.current.Store(config)
	return true, nil
}

func newTLSConfig(cert, key []byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		// net/http adds these to the outer settings only.
		NextProtos: []string{"h2", "http/1.1"},
	}, nil
}

// askForCertificates gives settings by which callers are asked for a certificate of one
// of the authorities.
func askForCertificates(config *tls.Config, authorities *x509.CertPool) *tls.Config {
	config = config.Clone()
	config.ClientCAs, config.ClientAuth = authorities, tls.VerifyClientCertIfGiven
	// A resumed session would bring along a certificate that was verified against the
	// authorities of another day.
	config.SessionTicketsDisabled = true
	return config
}
