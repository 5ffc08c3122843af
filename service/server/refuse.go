package server

import (
	"errors"
	"net/http"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/user"
)

// refusals writes error responses to requests that reach no handler, in the protocol of the request and
// without reading its body. For gRPC and gRPC-Web the response is Trailers-Only, because proxies
// drop the trailers of a response without content.
type refusals struct{ errors *connect.ErrorWriter }

func newRefusals() *refusals { return &refusals{errors: connect.NewErrorWriter()} }

// refuse writes a domain error.
func (f *refusals) refuse(w http.ResponseWriter, r *http.Request, err *user.Error) {
	auth.SkipRequestBody(w, r)
	if protocol.Of(r) == protocol.REST {
		rest.WriteError(w, err)
		return
	}
	converted, _ := intercept.ToConnect(err)
	_ = f.Write(w, r, converted) // fails only if the client has disconnected
}

// Write writes a *connect.Error.
func (f *refusals) Write(w http.ResponseWriter, r *http.Request, err error) error {
	if !protocol.Of(r).IsGRPC() {
		return f.errors.Write(w, r, err)
	}
	// connect writes Trailers-Only responses only for gRPC-Web. The status is encoded the same way
	// for gRPC.
	web := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/grpc-web"}}}
	return f.errors.Write(&trailersOnly{ResponseWriter: w, request: r}, web, err)
}

// trailersOnly writes the header of a Trailers-Only response.
type trailersOnly struct {
	http.ResponseWriter

	request *http.Request
}

// WriteHeader writes the header with the media type of the request.
func (t *trailersOnly) WriteHeader(status int) {
	header := t.Header()
	header.Set("Content-Type", t.request.Header.Get("Content-Type"))
	if t.request.ProtoMajor > 1 {
		header["Content-Length"] = nil // prevents net/http from adding it
	}
	t.ResponseWriter.WriteHeader(status)
}

var errUnknownProcedure = errors.New("unknown service or method")

// notFound responds to requests of unknown paths: UNIMPLEMENTED for RPCs, else 404.
func (f *refusals) notFound(w http.ResponseWriter, r *http.Request) {
	p := protocol.Of(r)
	if !p.IsEnveloped() && (p != protocol.Connect || r.Method != http.MethodPost) {
		http.NotFound(w, r)
		return
	}
	auth.SkipRequestBody(w, r)
	if p == protocol.Connect {
		w = statusNotFound{w}
	}
	_ = f.Write(w, r, connect.NewError(connect.CodeUnimplemented, errUnknownProcedure)) // fails only if the client has disconnected
}

// statusNotFound replaces the HTTP status of a Connect error with 404.
type statusNotFound struct{ http.ResponseWriter }

// WriteHeader writes 404.
func (n statusNotFound) WriteHeader(int) { n.ResponseWriter.WriteHeader(http.StatusNotFound) }
