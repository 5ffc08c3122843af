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

// Options are what callers may be recognized by. At least one is needed.
type Options struct {
	Tokens       *Verifier         // nil: tokens are not taken
	Certificates *CertificateRules // nil: certificates say nothing
	Authorities  *Authorities      // of the certificates; Run keeps them up to date
	Now          func() time.Time  // nil: time.Now
}

// Authenticator finds out who is calling. It is safe for use by many goroutines.
type Authenticator struct{ opts Options }

// NewAuthenticator returns an authenticator. Where nobody is to be recognized there is
// to be none: that everything is open must be said, see Everybody.
func NewAuthenticator(opts Options) (*Authenticator, error) {
	if opts.Tokens == nil && opts.Certificates == nil {
		return nil, errors.New("there is nothing to recognize callers by")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Authenticator{opts: opts}, nil
}

// Run keeps keys and rules up to date, until the context ends.
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

// Trouble says which callers cannot be recognized at present, and why; nil: all can.
func (a *Authenticator) Trouble() error {
	var troubles []error
	if a.opts.Tokens != nil {
		troubles = append(troubles, a.opts.Tokens.opts.Keys.Trouble())
	}
	if a.opts.Certificates != nil {
		troubles = append(troubles, a.opts.Certificates.Trouble())
	}
	if a.opts.Authorities != nil {
		troubles = append(troubles, a.opts.Authorities.Trouble())
	}
	return errors.Join(troubles...)
}

// Authenticate returns who makes the request, going by its head alone. Errors are
// *RefusedError. Of token and certificate the token decides, see the package comment.
func (a *Authenticator) Authenticate(r *http.Request) (Caller, error) {
	if headers := r.Header.Values("Authorization"); len(headers) > 0 {
		token, ok := bearer(headers)
		switch {
		case !ok:
			return Caller{}, refuse(CauseHeader, nil)
		case a.opts.Tokens == nil:
			return Caller{}, refuse(CauseNotTaken, nil)
		}
		return a.opts.Tokens.Verify(r.Context(), token, peer(r))
	}
	if a.opts.Certificates != nil && peer(r) != nil {
		return a.opts.Certificates.caller(r.TLS, a.opts.Now())
	}
	return Caller{}, refuse(CauseMissing, nil)
}

// bearer returns the one token. The scheme has no case (RFC 9110, section 11.1). Two
// headers could be read in two ways, so they are read in none.
func bearer(headers []string) (token string, ok bool) {
	if len(headers) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.TrimLeft(token, " ")
	return token, strings.EqualFold(scheme, "bearer") && token != "" && !strings.ContainsAny(token, " ,\t")
}

// peer is the certificate that the connection showed, verified or not.
func peer(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}
