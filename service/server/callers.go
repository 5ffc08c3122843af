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
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/transport"
)

// callers is what tells who is calling, and the certificate that the server itself
// shows.
type callers struct {
	policy        *auth.Policy
	authenticator *auth.Authenticator     // nil: nobody is asked
	certificates  *transport.Certificates // nil: there is no TLS
	documented    bool                    // anybody may read what there is to call
}

// loadCallers reads the files and keys that the configuration names. A file that cannot
// be used is an error. Keys that have to be fetched may come later: until then every
// token is refused.
func loadCallers(ctx context.Context, cfg *Config, further []Service, log *slog.Logger, registry prometheus.Registerer) (*callers, error) {
	c := &callers{policy: auth.NewPolicy(cfg.reflection()), documented: cfg.reflection() != auth.ReflectionOff}
	for i := range further {
		further[i].procedures(func(procedure string, _ bool) { c.policy.Allow(procedure, further[i].Open) })
	}
	var opts auth.Options
	var asked func() *x509.CertPool
	var err error
	if cfg.TLSClientCA != "" {
		opts.Authorities, err = auth.LoadAuthorities(ctx, auth.FileOptions{Path: cfg.TLSClientCA, Logger: log})
		if err != nil {
			return nil, fmt.Errorf("--tls-client-ca: %w", err)
		}
		asked = opts.Authorities.Pool
	}
	if cfg.TLSCert != "" {
		c.certificates, err = transport.LoadCertificates(ctx, transport.CertificatesOptions{
			Cert: cfg.TLSCert, Key: cfg.TLSKey, ClientCAs: asked, Logger: log,
		})
		if err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
	}
	if !cfg.identifies() {
		tellOpen(ctx, cfg, log)
		return c, nil
	}
	if opts.Tokens, err = loadTokens(ctx, cfg, log, registry); err != nil {
		return nil, err
	}
	if cfg.TLSClientRules != "" {
		opts.Certificates, err = auth.LoadCertificateRules(ctx, auth.CertificateRulesOptions{
			FileOptions: auth.FileOptions{Path: cfg.TLSClientRules, Logger: log}, Authorities: asked,
		})
		if err != nil {
			return nil, fmt.Errorf("--tls-client-rules: %w", err)
		}
	}
	c.authenticator, err = auth.NewAuthenticator(opts)
	return c, err
}

// loadTokens returns nil where tokens are not taken.
func loadTokens(ctx context.Context, cfg *Config, log *slog.Logger, registry prometheus.Registerer) (*auth.Verifier, error) {
	if cfg.JWTJWKS == "" {
		return nil, nil //nolint:nilnil // there is none, and nothing is wrong with that
	}
	if cfg.TLSCert == "" && !loopback(cfg.Listen) {
		log.LogAttrs(ctx, slog.LevelWarn, "tokens are taken without TLS: whoever sees the traffic can use them, "+
			"unless something in front of this server speaks TLS", slog.String("address", cfg.Listen))
	}
	keys, err := auth.NewKeys(auth.KeysOptions{Location: cfg.JWTJWKS, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("--jwt-jwks: %w", err)
	}
	if err := watchKeys(keys, registry); err != nil {
		return nil, fmt.Errorf("observe the keys of tokens: %w", err)
	}
	// A failure to fetch has been logged, and is mended by trying again.
	if err := keys.Load(ctx); err != nil && !strings.Contains(cfg.JWTJWKS, "://") {
		return nil, fmt.Errorf("--jwt-jwks: %w", err)
	}
	return auth.NewVerifier(auth.VerifierOptions{
		Keys: keys, Issuer: cfg.JWTIssuer, Audience: cfg.JWTAudience, PermissionsClaim: cfg.JWTPermissionsClaim,
	})
}

// middleware finds out who calls before anything of a request's body is read.
func (c *callers) middleware(refused func(*http.Request, *auth.RefusedError), limits *limits) func(http.Handler) http.Handler {
	opts := auth.MiddlewareOptions{
		Policy: c.policy, OpenPaths: []string{"/"}, OnRefused: refused, LimitRefusals: limits.tooMany, OnAuthenticated: limits.known,
		ErrorWriter: newRefusals(),
	}
	if c.documented {
		opts.OpenPaths = append(opts.OpenPaths, rest.OpenAPIPath)
	}
	if c.authenticator != nil {
		opts.Authenticate = c.authenticator.Authenticate
	}
	return auth.Middleware(opts)
}

// trouble says which callers cannot be recognized at present, and why; nil: all can.
func (c *callers) trouble() error {
	if c.authenticator == nil {
		return nil
	}
	return c.authenticator.Err()
}

// tellOpen logs that nobody is asked who calls. On a loopback address that is how one
// begins; on any other it is worth a second look.
func tellOpen(ctx context.Context, cfg *Config, log *slog.Logger) {
	level := slog.LevelWarn
	if loopback(cfg.Listen) {
		level = slog.LevelInfo
	}
	log.LogAttrs(ctx, level, "nobody is asked who calls: whoever reaches the address may do everything",
		slog.String("address", cfg.Listen))
}

// watchKeys registers a gauge of the age of the keys that tokens are checked with.
func watchKeys(keys *auth.Keys, registry prometheus.Registerer) error {
	return registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "userd_jwks_age_seconds", Help: "Seconds since the last successful load of the JWKS; +Inf if never loaded.",
	}, func() float64 {
		if at := keys.ReadAt(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return math.Inf(1)
	}))
}

// run keeps keys, rules and certificates up to date, until the context ends.
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
