package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/yourorg/userservice/service/rpcstatus"
)

// MiddlewareOptions are what Middleware is made of.
type MiddlewareOptions struct {
	// Authenticate says who makes a request, such as Authenticator.Authenticate. nil:
	// authentication is off, and every caller is Everybody.
	Authenticate func(*http.Request) (Caller, error)
	// Policy says which procedures need no credentials. Required.
	Policy *Policy
	// Pages are further paths that need none, such as "/" and "/openapi.yaml". A path
	// is compared as a whole; one that ends in /* stands for all that is below it.
	Pages []string
	// REST is how the paths begin where plain JSON is spoken. Default: "/api/".
	REST string
	// Refused, if set, is told of every refusal that Instead did not answer, to count
	// and to log it.
	Refused func(*http.Request, *RefusedError)
	// Known, if set, is called with the caller of a request before it is served, unless
	// the request needs no credentials. It returns false if it has written a response
	// instead.
	Known func(http.ResponseWriter, *http.Request, Caller) bool
	// Instead, if set, may answer a request that is about to be refused, and reports
	// whether it has: whoever is refused too often is told that.
	Instead func(http.ResponseWriter, *http.Request) bool
	// ErrorWriter writes errors of RPCs. nil: that of connect.
	ErrorWriter ErrorWriter
}

// An ErrorWriter writes an error in the protocol of the request.
type ErrorWriter interface {
	Write(w http.ResponseWriter, r *http.Request, err error) error
}

// Middleware returns HTTP middleware that finds out who is calling before anything of a
// body is read, and puts the Caller into the request's context. Whoever cannot be
// recognized is answered in his own protocol: as the status of gRPC, gRPC-Web or
// Connect, or as a google.rpc.Status in JSON; plain HTTP answers are 401 with
// WWW-Authenticate (RFC 6750, section 3). What needs no credentials is served to nobody
// in particular, whatever credentials come along.
//
// It goes by the path, which can be spelled in many ways. That is safe since a path
// that it does not know needs credentials, and since the policy is asked again, for the
// procedure, by an interceptor.
func Middleware(opts MiddlewareOptions) func(http.Handler) http.Handler {
	if opts.REST == "" {
		opts.REST = "/api/"
	}
	if opts.ErrorWriter == nil {
		opts.ErrorWriter = connect.NewErrorWriter()
	}
	return func(next http.Handler) http.Handler {
		if opts.Authenticate == nil {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), Everybody())))
			})
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if opts.open(r.URL.Path) {
				next.ServeHTTP(w, r)
				return
			}
			caller, err := opts.Authenticate(r)
			if err != nil {
				opts.refuse(w, r, err)
				return
			}
			if opts.Known != nil && !opts.Known(w, r, caller) {
				return
			}
			s := &standing{caller: caller, request: r, authenticate: opts.Authenticate}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), standingKey{}, s)))
		})
	}
}

func (o *MiddlewareOptions) open(path string) bool {
	return o.Policy.Open(path) || slices.ContainsFunc(o.Pages, func(page string) bool {
		if below, ok := strings.CutSuffix(page, "*"); ok {
			return strings.HasPrefix(path, below)
		}
		return path == page
	})
}

func (o *MiddlewareOptions) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if o.Instead != nil && o.Instead(w, r) {
		return
	}
	refused := asRefused(err)
	if o.Refused != nil {
		o.Refused(r, refused)
	}
	LeaveBody(w, r)
	w.Header().Set("Cache-Control", "no-store")
	told, _ := rpcstatus.From(refused)
	enveloped := isEnveloped(r)
	if !enveloped {
		w.Header().Set("WWW-Authenticate", challenge(refused))
	}
	if !enveloped && strings.HasPrefix(r.URL.Path, o.REST) {
		writeStatus(w, told, refused)
		return
	}
	_ = o.ErrorWriter.Write(w, r, connectError(told)) // a caller who has gone cannot be told
}

// LeaveBody lets an answer go that does not depend on the request's body. Over HTTP/1.1
// net/http reads what is left of a body, up to 256 KiB, before it sends the header of an
// answer, so that the connection can be used again; who sends none of it would wait for
// himself, and hear nothing in the end. The connection is worth less than the answer.
func LeaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
}

// isEnveloped reports whether the caller's protocol answers 200 and puts the status
// elsewhere.
func isEnveloped(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return r.Method == http.MethodPost &&
		(strings.HasPrefix(kind, "application/grpc") || strings.HasPrefix(kind, "application/connect+"))
}

// challenge gives the WWW-Authenticate header. Who brought no credentials is told of no
// error (RFC 6750, section 3.1).
func challenge(refused *RefusedError) string {
	const scheme = `Bearer realm="userd"`
	if refused.Cause == CauseMissing {
		return scheme
	}
	return scheme + `, error="invalid_token", error_description="` + refused.Cause.text() + `"`
}

func writeStatus(w http.ResponseWriter, told *status.Status, refused *RefusedError) {
	body, err := protojson.Marshal(told)
	if err != nil {
		body, _ = protojson.Marshal(&status.Status{Code: told.GetCode(), Message: told.GetMessage()})
	}
	body = append(body, '\n')
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	if refused.Cause == CauseNoKeys {
		header.Set("Retry-After", strconv.Itoa(int(keysRetry.Seconds())))
	}
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write(body) // a caller who has gone cannot be told
}

func connectError(told *status.Status) *connect.Error {
	answer := connect.NewError(connect.Code(told.GetCode()), errors.New(told.GetMessage()))
	for _, packed := range told.GetDetails() {
		if detail, err := connect.NewErrorDetail(packed); err == nil {
			answer.AddDetail(detail)
		}
	}
	return answer
}
