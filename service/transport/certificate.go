package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/yourorg/userservice/service/filewatch"
)

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
	*filewatch.Files[*tls.Config]

	clientCAs func() *x509.CertPool
}

// LoadCertificates reads the files. The error names the invalid file.
func LoadCertificates(ctx context.Context, opts CertificatesOptions) (*Certificates, error) {
	files, err := filewatch.Load(filewatch.Options[*tls.Config]{
		Paths: []string{opts.Cert, opts.Key}, Refresh: opts.Refresh,
		Parse: func(contents [][]byte) (*tls.Config, error) {
			config, err := newTLSConfig(contents[0], contents[1])
			if err != nil {
				return nil, err
			}
			if leaf := config.Certificates[0].Leaf; leaf != nil && time.Now().After(leaf.NotAfter) {
				opts.Logger.LogAttrs(ctx, slog.LevelWarn, "server certificate expired", slog.Time("not_after", leaf.NotAfter))
			}
			return config, nil
		},
		Changed: func(ctx context.Context) { opts.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate reloaded") },
		Failed: func(ctx context.Context, err error, _ time.Time) {
			opts.Logger.LogAttrs(ctx, slog.LevelError, "certificate reload failed, previous certificate in use", slog.Any("error", err))
		},
	})
	if err != nil {
		return nil, err
	}
	return &Certificates{Files: files, clientCAs: opts.ClientCAs}, nil
}

// Config returns a server configuration that uses the current certificate for each handshake: TLS
// 1.2 or later, HTTP/2 preferred. Client certificates are optional, and verified when presented.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			config, _ := c.Get()
			if c.clientCAs == nil {
				return config, nil
			}
			return withClientCAs(config, c.clientCAs()), nil
		},
	}
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
