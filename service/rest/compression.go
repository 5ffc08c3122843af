package rest

import (
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// newBodyError returns the error for an invalid body.
func newBodyError(message string) *connect.Error {
	err, _ := intercept.ToConnect(user.NewFieldErrorf(bodyName, "%s", message))
	return err
}

// acceptsGzip reports whether the client accepts gzip.
func acceptsGzip(r *http.Request) bool {
	return qualityOf(r.Header["Accept-Encoding"], "gzip", "*") > 0
}

// contentCoding returns the content coding of the body, "" for none. ok is false if it is not supported.
func contentCoding(r *http.Request) (coding string, ok bool) {
	lines := r.Header["Content-Encoding"]
	if len(lines) > 1 {
		return "", false
	}
	coding = strings.ToLower(strings.TrimSpace(strings.Join(lines, "")))
	switch coding {
	case "", "identity":
		return "", true
	case "gzip", "x-gzip":
		return "gzip", true
	default:
		return "", false
	}
}
