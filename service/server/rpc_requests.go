package server

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// longestControl bounds the headers and parameters that control an RPC. No valid one is
// nearly as long, and package connect repeats them in its errors.
const longestControl = 128

var (
	controlHeaders = []string{ // never changed
		"Connect-Content-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Content-Encoding",
		"Grpc-Encoding", "Grpc-Timeout",
	}
	controlParameters = []string{"base64", "compression", "connect", "encoding"} // never changed
)

// checkRPC refuses requests that package connect would answer wrongly: without saying
// why, as a fault of the server, or with as many bytes as they have.
func checkRPC(next http.Handler) http.Handler {
	errorWriter, bidi := newRefusals(), bidiProcedures()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor < 2 && bidi[r.URL.Path] {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			_, _ = io.WriteString(w, "a bidirectional stream needs HTTP/2, this request came over HTTP/1\n") // a caller who has gone cannot be told
			return
		}
		if message := wrongControl(r); message != "" {
			failure := connect.NewError(connect.CodeInvalidArgument, errors.New(message))
			_ = errorWriter.Write(w, r, failure) // a caller who has gone cannot be told
			return
		}
		next.ServeHTTP(w, r)
	})
}

// wrongControl says what is wrong with what controls an RPC, empty: nothing.
func wrongControl(r *http.Request) string {
	for _, name := range controlHeaders {
		if values := r.Header[name]; len(values) > 0 && len(values[0]) > longestControl {
			return strings.ToLower(name) + ": longer than any valid value"
		}
	}
	if r.Method != http.MethodGet || r.URL.RawQuery == "" {
		return ""
	}
	query := r.URL.Query()
	for _, name := range controlParameters {
		if len(query.Get(name)) > longestControl {
			return name + ": longer than any valid value"
		}
	}
	return wrongBase64(query)
}

// wrongBase64 says what is wrong with the message of a Connect GET.
func wrongBase64(query url.Values) string {
	if query.Get("base64") != "1" {
		return ""
	}
	encoding, message := base64.URLEncoding, query.Get("message")
	if len(message)%4 != 0 {
		encoding = base64.RawURLEncoding
	}
	if _, err := encoding.DecodeString(message); err != nil {
		return "message: must be URL-safe base64, because the query has base64=1"
	}
	return ""
}

// bidiProcedures returns the procedures that need HTTP/2.
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
