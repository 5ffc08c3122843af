package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure an Authenticator. Tokens or Certificates is required.
type Options struct {
	Tokens       *Verifier         // nil: tokens are rejected
	Certificates *CertificateRules // nil: client certificates are ignored
	Authorities  *Authorities      // client CAs, reloaded by Run; may be nil
	Now          func() time.Time  // nil: time.Now
}

// Authenticator authenticates HTTP requests. It is safe for concurrent use.
type Authenticator struct{ opts Options }

// NewAuthenticator returns an authenticator. To disable authentication, use FullAccess
// instead of an authenticator.
func NewAuthenticator(opts Options) (*Authenticator, error) {
	if opts.Tokens == nil && opts.Certificates == nil {
		return nil, errors.New("authentication needs tokens or client certificates")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Authenticator{opts: opts}, nil
}

// Run reloads keys, rules and client CAs until ctx is done.
func (a *Authenticator) Run(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	if a.opts.Tokens != nil {
		loops.Go(func() { a.opts.Tokens.opts.Keys.Run(ctx) })
	}
	if a.opts.Certificates != nil {
		loops.Go(func() { a.opts.Certificates.Run(ctx) })
	}
	if a.opts.Authorities != nil {
		loops.Go(func() { a.opts.Authorities.Run(ctx) })
	}
}

// Err returns an error if some callers cannot be authenticated at present, else nil.
func (a *Authenticator) Err() error {
	var errs []error
	if a.opts.Tokens != nil {
		errs = append(errs, a.opts.Tokens.opts.Keys.Err())
	}
	if a.opts.Certificates != nil {
		errs = append(errs, a.opts.Certificates.Err())
	}
	if a.opts.Authorities != nil {
		errs = append(errs, a.opts.Authorities.Err())
	}
	return errors.Join(errs...)
}

// Authenticate returns the caller of r, from the request header and the connection. It
// does not read the body. Errors are of type *RefusedError.
func (a *Authenticator) Authenticate(r *http.Request) (Caller, error) {
	if headers := r.Header.Values("Authorization"); len(headers) > 0 {
		token, ok := bearer(headers)
		switch {
		case !ok:
			return Caller{}, newRefusedError(CauseHeader, nil)
		case a.opts.Tokens == nil:
			return Caller{}, newRefusedError(CauseTokensDisabled, nil)
		}
		return a.opts.Tokens.Verify(r.Context(), token, peer(r))
	}
	if a.opts.Certificates != nil && peer(r) != nil {
		return a.opts.Certificates.caller(r.TLS, a.opts.Now())
	}
	return Caller{}, newRefusedError(CauseMissing, nil)
}

// bearer returns the bearer token of the Authorization headers. The scheme is
// case-insensitive (RFC 9110, section 11.1). More than one header is ambiguous and rejected.
func bearer(headers []string) (token string, ok bool) {
	if len(headers) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.TrimLeft(token, " ")
	return token, strings.EqualFold(scheme, "bearer") && token != "" && !strings.ContainsAny(token, " ,\t")
}

// peer returns the client certificate of the connection, verified or not, or nil.
func peer(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}
