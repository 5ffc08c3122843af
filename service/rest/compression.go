package rest

import (
	"math"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/bounds"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// compressMinBytes is the minimum size of a compressed response.
const compressMinBytes = 1024

// newMessages returns a message reader without a memory limit.
func newMessages(opts Options) *codec.Messages {
	return codec.NewMessages(codec.MessageOptions{
		TooLarge:    func(_ *http.Request, limit int64) error { return opts.TooLarge(limit) },
		TooComplex:  func(limit int64) error { return intercept.NewTooComplexError(limit) },
		Overloaded:  func(*http.Request) error { return user.NewOverloadedError() },
		DecodedSize: func(_ protoreflect.MessageDescriptor, _ bool, data []byte) int64 { return bounds.JSON(data) },
		MaxDecoded:  math.MaxInt64,
	})
}

// newBodyError returns the error for an invalid body.
func newBodyError(message string) *connect.Error {
	answer, _ := intercept.ToConnect(user.NewFieldErrorf(bodyName, "%s", message))
	return answer
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
	case "gzip":
		return coding, true
	default:
		return "", false
	}
}
