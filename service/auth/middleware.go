package auth

import (
	"net/http"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/reqinfo"
)

// MiddlewareOptions configure Middleware.
type MiddlewareOptions struct {
	// Authenticate authenticates a request, as Authenticator.Authenticate does. nil
	// disables authentication: every caller has FullAccess.
	Authenticate func(*http.Request) (Caller, error)
	// Policy determines the procedures that need no credentials. Required.
	Policy *Policy
	// OpenPaths are other paths that need no credentials, such as "/openapi.yaml". The whole
	// path is compared; "/x/*" matches every path below /x/.
	OpenPaths []string
	// OnRefused, if set, is called for every rejected request that LimitRefusals did not
	// handle.
	OnRefused func(*http.Request, *RefusedError)
	// OnAuthenticated, if set, is called with the caller before the next handler, when the
	// request context has the caller. It returns false if it has written a response; the next handler is then not called.
	OnAuthenticated func(http.ResponseWriter, *http.Request, Caller) bool
	// LimitRefusals, if set, is called before a request is rejected. It may write a
	// rate-limit response instead, and then returns true.
	LimitRefusals func(http.ResponseWriter, *http.Request) bool
}

// Middleware returns HTTP middleware that authenticates a request before its body is read and
// stores the Caller in the State of the request context. A rejection is written in the protocol of the
// request: a gRPC, gRPC-Web or Connect status, or a google.rpc.Status in JSON. Plain HTTP
// responses have status 401 and WWW-Authenticate (RFC 6750, section 3). Paths that need no
// credentials are served without a caller, even if credentials are sent.
//
// The decision is by path, and a path can have several spellings. That is safe: an unknown
// path needs credentials, and an interceptor authorizes the procedure.
func Middleware(opts MiddlewareOptions) func(http.Handler) http.Handler {
	check := NewCheck(opts)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if callerStateOf(r.Context()) == nil {
				r = r.WithContext(reqinfo.With(r.Context(), new(State)))
			}
			if check(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	}
}

// NewCheck returns Middleware as a check, for requests whose context has a State. It reports whether the request goes on; otherwise
// it has responded.
func NewCheck(opts MiddlewareOptions) func(http.ResponseWriter, *http.Request) bool {
	if opts.Authenticate == nil {
		return func(_ http.ResponseWriter, r *http.Request) bool {
			setCaller(r, FullAccess(), nil)
			return true
		}
	}
	return func(w http.ResponseWriter, r *http.Request) bool {
		if opts.open(r.URL.Path) {
			return true
		}
		caller, err := opts.Authenticate(r)
		if err != nil {
			opts.refuse(w, r, err)
			return false
		}
		setCaller(r, caller, opts.Authenticate)
		return opts.OnAuthenticated == nil || opts.OnAuthenticated(w, r, caller)
	}
}

func (o *MiddlewareOptions) open(path string) bool {
	return o.Policy.Open(path) || slices.ContainsFunc(o.OpenPaths, func(page string) bool {
		if below, ok := strings.CutSuffix(page, "*"); ok {
			return strings.HasPrefix(path, below)
		}
		return path == page
	})
}

func (o *MiddlewareOptions) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if o.LimitRefusals != nil && o.LimitRefusals(w, r) {
		return
	}
	refused := asRefused(err)
	if o.OnRefused != nil {
		o.OnRefused(r, refused)
	}
	w.Header().Set("Cache-Control", "no-store")
	if !protocol.Of(r).IsEnveloped() {
		w.Header().Set("WWW-Authenticate", challenge(refused))
	}
	httperror.Write(w, r, refused)
}

// challenge returns the WWW-Authenticate header. It names no error if the request had no
// credentials (RFC 6750, section 3.1).
func challenge(refused *RefusedError) string {
	const scheme = `Bearer realm="userd"`
	if refused.Cause == CauseMissing {
		return scheme
	}
	return scheme + `, error="invalid_token", error_description="` + refused.Cause.text() + `"`
}
