package server

import (
	"errors"
	"mime"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/user"
)

// refusals writes the errors of requests that reach no handler, in the protocol of the
// request and without reading its body. It is the only writer of such errors: gRPC and
// gRPC-Web get a Trailers-Only response, whose status is in the one HEADERS frame, because
// proxies drop the trailers of a response that says it has no content.
type refusals struct{ errors *connect.ErrorWriter }

func newRefusals() *refusals { return &refusals{errors: connect.NewErrorWriter()} }

// refuse writes an error of the domain.
func (f *refusals) refuse(w http.ResponseWriter, r *http.Request, err *user.Error) {
	auth.SkipRequestBody(w, r)
	if strings.HasPrefix(r.URL.Path, rest.Prefix) && !isGRPC(r) {
		rest.WriteError(w, err)
		return
	}
	converted, _ := intercept.ToConnect(err)
	_ = f.Write(w, r, converted) // the caller may have gone
}

// Write writes a *connect.Error.
func (f *refusals) Write(w http.ResponseWriter, r *http.Request, err error) error {
	if !isGRPC(r) {
		return f.errors.Write(w, r, err)
	}
	// connect writes a Trailers-Only response for gRPC-Web alone, and encodes the status of
	// both protocols in the same way.
	web := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/grpc-web"}}}
	return f.errors.Write(&trailersOnly{ResponseWriter: w, request: r}, web, err)
}

// trailersOnly sends a header that ends its stream.
type trailersOnly struct {
	http.ResponseWriter

	request *http.Request
}

// WriteHeader sends the header in the media type of the request.
func (t *trailersOnly) WriteHeader(status int) {
	header := t.Header()
	header.Set("Content-Type", t.request.Header.Get("Content-Type"))
	if t.request.ProtoMajor > 1 {
		header["Content-Length"] = nil // gRPC has none, and net/http adds none then
	}
	t.ResponseWriter.WriteHeader(status)
}

// isGRPC reports whether a request is one of gRPC or gRPC-Web, in any of their forms.
func isGRPC(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || r.Method != http.MethodPost {
		return false
	}
	suffix, ok := strings.CutPrefix(kind, "application/grpc")
	return ok && (suffix == "" || suffix[0] == '+' || suffix[0] == '-')
}

// isConnect reports whether a request is a POST of Connect, and whether of a stream.
func isConnect(r *http.Request) (connects, streams bool) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || r.Method != http.MethodPost {
		return false, false
	}
	streams = strings.HasPrefix(kind, "application/connect+")
	return streams || kind == "application/json" || kind == "application/proto", streams
}

var errUnknownProcedure = errors.New("unknown service or method")

// unknown responds to requests of paths that there are not: RPCs get an error of their
// protocol, everything else 404.
func (f *refusals) unknown(w http.ResponseWriter, r *http.Request) {
	connects, streams := isConnect(r)
	if !connects && !isGRPC(r) {
		http.NotFound(w, r)
		return
	}
	auth.SkipRequestBody(w, r)
	if connects && !streams {
		w = notFound{w}
	}
	_ = f.Write(w, r, connect.NewError(connect.CodeUnimplemented, errUnknownProcedure)) // the caller may have gone
}

// notFound gives an error of Connect the status that an unknown path has.
type notFound struct{ http.ResponseWriter }

// WriteHeader sends 404.
func (n notFound) WriteHeader(int) { n.ResponseWriter.WriteHeader(http.StatusNotFound) }
