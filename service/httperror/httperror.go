// Package httperror writes the errors of requests that reach no RPC handler, in the protocol of the request:
// a gRPC, gRPC-Web or Connect status, or a google.rpc.Status in JSON for REST. It does not read the body of the
// request.
package httperror

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// Write writes err, a *connect.Error or an error of rpcstatus.From. It is called before the response has
// started. Errors of the connection are ignored: the client may have disconnected.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	SkipRequestBody(w, r)
	if protocol.Of(r) == protocol.REST {
		s, _ := rpcstatus.From(err)
		WriteStatus(w, rpcstatus.HTTPStatus(user.Code(s.GetCode()), rpcstatus.Reason(s)), s)
		return
	}
	WriteRPC(w, r, err)
}

// WriteRPC writes the error of a gRPC, gRPC-Web or Connect call whose request was read. For gRPC and gRPC-Web the response is
// Trailers-Only, because proxies drop the trailers of a response without content.
func WriteRPC(w http.ResponseWriter, r *http.Request, err error) {
	failure := (*connect.Error)(nil)
	if !errors.As(err, &failure) {
		s, _ := rpcstatus.From(err)
		failure = rpcstatus.ConnectError(s)
	}
	if protocol.Of(r).IsGRPC() {
		// connect writes Trailers-Only responses only for gRPC-Web. The status is encoded the same way
		// for gRPC.
		w = &trailersOnly{ResponseWriter: w, request: r}
		r = &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/grpc-web"}}}
	}
	_ = connect.NewErrorWriter().Write(w, r, failure)
}

// SetTrailers sets the trailers of a gRPC call that failed after its response had started. header is that of the response.
func SetTrailers(header http.Header, err error) {
	w := trailers{}
	WriteRPC(w, &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/grpc-web"}}, URL: new(url.URL)}, err)
	for name, values := range w {
		if name != "Content-Type" && name != "Content-Length" {
			header[http.TrailerPrefix+name] = values
		}
	}
}

// trailers collects the header of a Trailers-Only response.
type trailers http.Header

// Header returns the trailers.
func (t trailers) Header() http.Header { return http.Header(t) }

// WriteHeader does nothing.
func (trailers) WriteHeader(int) {}

// Write does nothing.
func (trailers) Write(p []byte) (int, error) { return len(p), nil }

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

// NotFound responds to a request of an unknown path: UNIMPLEMENTED for RPCs, else 404.
func NotFound(w http.ResponseWriter, r *http.Request) {
	p := protocol.Of(r)
	if !p.IsEnveloped() && (p != protocol.Connect || r.Method != http.MethodPost) {
		http.NotFound(w, r)
		return
	}
	SkipRequestBody(w, r)
	if p == protocol.Connect {
		w = statusNotFound{w}
	}
	WriteRPC(w, r, connect.NewError(connect.CodeUnimplemented, errUnknownProcedure))
}

// statusNotFound replaces the HTTP status of a Connect error with 404.
type statusNotFound struct{ http.ResponseWriter }

// WriteHeader writes 404.
func (n statusNotFound) WriteHeader(int) { n.ResponseWriter.WriteHeader(http.StatusNotFound) }

// WriteStatus writes the error response of REST.
func WriteStatus(w http.ResponseWriter, httpStatus int, s *status.Status) {
	body := append(rpcstatus.JSON(s), '\n')
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	if retry := rpcstatus.Detail[*errdetails.RetryInfo](s).GetRetryDelay(); retry != nil {
		seconds := int64(math.Ceil(retry.AsDuration().Seconds()))
		header.Set("Retry-After", strconv.FormatInt(max(seconds, 0), 10))
	}
	w.WriteHeader(httpStatus)
	_, _ = w.Write(body) //nolint:gosec,nolintlint // JSON, not HTML
}

// SkipRequestBody makes a response independent of the rest of the request body. Over HTTP/1.1 net/http reads up
// to 256 KiB of an unread body before it sends the response, so that it can reuse the connection. A client that
// never sends the body would get no response, so the connection is closed instead.
func SkipRequestBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
}
