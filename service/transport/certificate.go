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

// certificateRefresh is the default interval of checks for changed files.
const certificateRefresh = 5 * time.Second

// CertificatesOptions configure Certificates.
type CertificatesOptions struct {
	// Cert and Key are PEM files: the certificate chain, leaf first, and its key. Required.
	Cert, Key string
	// ClientCAs returns the CA pool for client certificates, for each handshake. nil: client
	// certificates are not requested.
	ClientCAs func() *x509.CertPool
	// Refresh is the interval of checks for changed files. 0: 5 s.
	Refresh time.Duration
	Logger  *slog.Logger
}

// Certificates is a server certificate that is reloaded when its files change. It is safe for
// concurrent use.
//
// New files apply to later handshakes. Files that do not match, as while they are being replaced,
// are ignored and read again.
type Certificates struct {
	opts    CertificatesOptions
	current atomic.Pointer[tls.Config]
	digest  [sha256.Size]byte // of the last files read; used by Run only, once it runs
}

// LoadCertificates reads the files. The error names the invalid file.
func LoadCertificates(ctx context.Context, opts CertificatesOptions) (*Certificates, error) {
	if opts.Refresh == 0 {
		opts.Refresh = certificateRefresh
	}
	c := &Certificates{opts: opts}
	if _, err := c.reload(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Run reloads changed files until the context ends.
func (c *Certificates) Run(ctx context.Context) {
	ticker := time.NewTicker(c.opts.Refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := c.reload(ctx); {
		case err != nil:
			c.opts.Logger.LogAttrs(ctx, slog.LevelError, "certificate reload failed, previous certificate in use",
				slog.Any("error", err))
		case changed:
			c.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate reloaded")
		}
	}
}

// Config returns a server configuration that uses the current certificate for each handshake: TLS
// 1.2 or later, HTTP/2 preferred. Client certificates are optional, and verified when presented.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if c.opts.ClientCAs == nil {
				return c.current.Load(), nil
			}
			return withClientCAs(c.current.Load(), c.opts.ClientCAs()), nil
		},
	}
}

// reload loads the files if they changed. Invalid files return an error once, until they change
// again.
func (c *Certificates) reload(ctx context.Context) (changed bool, err error) {
	var files [2][]byte
	for i, path := range []string{c.opts.Cert, c.opts.Key} {
		if files[i], err = os.ReadFile(path); err != nil { //nolint:gosec // the operator configures the path
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
		c.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "server certificate expired", slog.Time("not_after", leaf.NotAfter))
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
		// net/http adds these to the outer configuration only.
		NextProtos: []string{"h2", "http/1.1"},
	}, nil
}

// withClientCAs returns a copy of config that requests client certificates issued by the
// authorities.
func withClientCAs(config *tls.Config, authorities *x509.CertPool) *tls.Config {
	config = config.Clone()
	config.ClientCAs, config.ClientAuth = authorities, tls.VerifyClientCertIfGiven
	// A resumed session would keep a certificate that was verified with earlier authorities.
	config.SessionTicketsDisabled = true
	return config
}
