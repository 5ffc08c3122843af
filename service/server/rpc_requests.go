package server

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/yourorg/userservice/service/httperror"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// maxControlLength bounds the headers and query parameters that control an RPC. Valid values are much
// shorter, and package connect repeats invalid ones in its errors.
const maxControlLength = 128

var (
	controlHeaders = []string{ // never changed
		"Connect-Content-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Content-Encoding",
		"Grpc-Encoding", "Grpc-Timeout",
	}
	controlParameters = []string{"base64", "compression", "connect", "encoding"} // never changed
)

// checkRPC rejects invalid requests for which the error of package connect would have no reason, a wrong
// code, or an unbounded length.
func checkRPC() check {
	bidi := bidiProcedures()
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.ProtoMajor < 2 && bidi[r.URL.Path] {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			_, _ = io.WriteString(w, "bidirectional streams require HTTP/2, the request used HTTP/1\n")
			return false
		}
		if message := invalidControl(r); message != "" {
			httperror.Write(w, r, connect.NewError(connect.CodeInvalidArgument, errors.New(message)))
			return false
		}
		return true
	}
}

// invalidControl returns an error message for invalid control headers and parameters, or "".
func invalidControl(r *http.Request) string {
	for _, name := range controlHeaders {
		if values := r.Header[name]; len(values) > 0 && len(values[0]) > maxControlLength {
			return strings.ToLower(name) + ": value too long"
		}
	}
	if r.Method != http.MethodGet || r.URL.RawQuery == "" {
		return ""
	}
	query := r.URL.Query()
	for _, name := range controlParameters {
		if len(query.Get(name)) > maxControlLength {
			return name + ": value too long"
		}
	}
	return invalidBase64(query)
}

// invalidBase64 returns an error message for the message of a Connect GET, or "".
func invalidBase64(query url.Values) string {
	if query.Get("base64") != "1" {
		return ""
	}
	encoding, message := base64.URLEncoding, query.Get("message")
	if len(message)%4 != 0 {
		encoding = base64.RawURLEncoding
	}
	if _, err := encoding.DecodeString(message); err != nil {
		return "message: must be URL-safe base64 with base64=1"
	}
	return ""
}

// bidiProcedures returns the bidirectional procedures, which require HTTP/2.
func bidiProcedures() map[string]bool {
	bidi := map[string]bool{
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      true,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": true,
	}
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		if method := methods.Get(i); method.IsStreamingClient() && method.IsStreamingServer() {
			bidi[procedure(method)] = true
		}
	}
	return bidi
}
