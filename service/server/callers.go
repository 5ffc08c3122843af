package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/limits"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/transport"
)

// callers authenticates and authorizes callers, and holds the certificates of the server.
type callers struct {
	policy        *auth.Policy
	authenticator *auth.Authenticator     // nil: authentication disabled
	certificates  *transport.Certificates // nil: no TLS
	documented    bool                    // /openapi.yaml is served, without credentials
}

// loadCallers loads the configured files and keys. An invalid file is an error. If a JWKS cannot
// be fetched, every token is rejected until a later fetch succeeds.
func loadCallers(ctx context.Context, cfg *Config, additional []Service, log *slog.Logger, registry prometheus.Registerer) (*callers, error) {
	c := &callers{policy: auth.NewPolicy(cfg.reflection()), documented: cfg.reflection() != auth.ReflectionOff}
	for i := range additional {
		additional[i].procedures(func(procedure string, _ bool) { c.policy.Allow(procedure, additional[i].Open) })
	}
	var opts auth.Options
	var clientCAs func() *x509.CertPool
	var err error
	if cfg.TLSClientCA != "" {
		opts.Authorities, err = auth.LoadAuthorities(auth.FileOptions{Path: cfg.TLSClientCA, Logger: log})
		if err != nil {
			return nil, fmt.Errorf("--tls-client-ca: %w", err)
		}
		clientCAs = opts.Authorities.Pool
	}
	if cfg.TLSCert != "" {
		c.certificates, err = transport.LoadCertificates(ctx, transport.CertificatesOptions{
			Cert: cfg.TLSCert, Key: cfg.TLSKey, ClientCAs: clientCAs, Logger: log,
		})
		if err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
	}
	if !cfg.authenticates() {
		logAuthDisabled(ctx, cfg, log)
		return c, nil
	}
	if opts.Tokens, err = loadTokens(ctx, cfg, log, registry); err != nil {
		return nil, err
	}
	if cfg.TLSClientRules != "" {
		opts.Certificates, err = auth.LoadCertificateRules(auth.CertificateRulesOptions{
			FileOptions: auth.FileOptions{Path: cfg.TLSClientRules, Logger: log}, Authorities: clientCAs,
		})
		if err != nil {
			return nil, fmt.Errorf("--tls-client-rules: %w", err)
		}
	}
	c.authenticator, err = auth.NewAuthenticator(opts)
	return c, err
}

// loadTokens returns the verifier of bearer tokens, nil if --jwt-jwks is not set.
func loadTokens(ctx context.Context, cfg *Config, log *slog.Logger, registry prometheus.Registerer) (*auth.Verifier, error) {
	if cfg.JWTJWKS == "" {
		return nil, nil //nolint:nilnil // tokens are optional
	}
	if cfg.TLSCert == "" && !loopback(cfg.Listen) {
		log.LogAttrs(ctx, slog.LevelWarn, "bearer tokens accepted without TLS", slog.String("addr", cfg.Listen))
	}
	keys, err := auth.NewKeys(auth.KeysOptions{Location: cfg.JWTJWKS, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("--jwt-jwks: %w", err)
	}
	if err := registerKeys(keys, registry); err != nil {
		return nil, fmt.Errorf("register JWKS metrics: %w", err)
	}
	// Keys logs a failed fetch and retries it.
	if err := keys.Load(ctx); err != nil && !strings.Contains(cfg.JWTJWKS, "://") {
		return nil, fmt.Errorf("--jwt-jwks: %w", err)
	}
	return auth.NewVerifier(auth.VerifierOptions{
		Keys: keys, Issuer: cfg.JWTIssuer, Audience: cfg.JWTAudience, PermissionsClaim: cfg.JWTPermissionsClaim,
	})
}

// middleware authenticates requests before their body is read.
func (c *callers) authenticate(onRefused func(*http.Request, *auth.RefusedError), limits *limits.Limits) check {
	opts := auth.MiddlewareOptions{
		Policy: c.policy, OpenPaths: []string{"/"}, OnRefused: onRefused, LimitRefusals: limits.RejectExcess, OnAuthenticated: limits.Authenticated,
	}
	if c.documented {
		opts.OpenPaths = append(opts.OpenPaths, rest.OpenAPIPath)
	}
	if c.authenticator != nil {
		opts.Authenticate = c.authenticator.Authenticate
	}
	return auth.NewCheck(opts)
}

// err returns why some callers cannot be authenticated at present, or nil.
func (c *callers) err() error {
	if c.authenticator == nil {
		return nil
	}
	return c.authenticator.Err()
}

// logAuthDisabled logs that authentication is disabled, as a warning unless the address is loopback.
func logAuthDisabled(ctx context.Context, cfg *Config, log *slog.Logger) {
	level := slog.LevelWarn
	if loopback(cfg.Listen) {
		level = slog.LevelInfo
	}
	log.LogAttrs(ctx, level, "authentication disabled: every caller has full access",
		slog.String("addr", cfg.Listen))
}

// registerKeys registers the metrics of the JWKS.
func registerKeys(keys *auth.Keys, registry prometheus.Registerer) error {
	return registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "userd_jwks_age_seconds", Help: "Seconds since the last successful load of the JWKS; +Inf if never loaded.",
	}, func() float64 {
		if at := keys.ReadAt(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return math.Inf(1)
	}))
}

// run reloads keys, rules and certificates until ctx is done.
func (c *callers) run(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	if c.authenticator != nil {
		loops.Go(func() { c.authenticator.Run(ctx) })
	}
	if c.certificates != nil {
		loops.Go(func() { c.certificates.Run(ctx) })
	}
}
