package rest

import (
	"math"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/bounds"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// compressMinBytes is the least an answer has to have to be worth compressing.
const compressMinBytes = 1024

// jsonDecodings is how often a body is decoded: from JSON, and from the binary form in
// which the handler gets it.
const jsonDecodings = 2

// newMessages returns what reads bodies where the server has nothing of its own for it.
func newMessages(opts Options) *transport.Messages {
	return transport.NewMessages(transport.MessageOptions{
		TooLarge:    func(_ *http.Request, limit int64) error { return opts.TooLarge(limit) },
		TooComplex:  func(limit int64) error { return intercept.NewTooComplexError(limit) },
		Overloaded:  func(*http.Request) error { return user.NewOverloadedError() },
		DecodedSize: func(_ protoreflect.MessageDescriptor, _ bool, data []byte) int64 { return bounds.JSON(data) },
		MaxDecoded:  math.MaxInt64 / jsonDecodings,
	})
}

// newBodyError is the answer to a body that cannot be read.
func newBodyError(message string) *connect.Error {
	answer, _ := intercept.ToConnect(user.NewFieldErrorf(bodyName, "%s", message))
	return answer
}

// takesGzip reports whether the caller takes a compressed answer.
func takesGzip(r *http.Request) bool {
	return qualityOf(r.Header["Accept-Encoding"], "gzip", "*") > 0
}

// codingOf returns the one coding of a request's body, empty for none; ok is false
// for what the server does not decode.
func codingOf(r *http.Request) (coding string, ok bool) {
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
