package transport

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"connectrpc.com/connect"
)

// A BodyFault is what a caller did wrong with a request body.
type BodyFault int

const (
	// BodyMalformed is a body that is not what its protocol or its header says.
	BodyMalformed BodyFault = iota
	// BodyCompressed is a compressed message of a request that names no compression.
	BodyCompressed
	// BodyAborted is a body whose stream or connection the caller has closed.
	BodyAborted
)

// prefixBytes is the length of what precedes a message: flags and its length.
const prefixBytes = 5

const compressedFlag = 1

// fault returns the error for what a caller did wrong.
func (b *limitedBody) fault(fault BodyFault, format string, args ...any) error {
	b.exchange.badBody.Store(true)
	if b.opts.BodyFault == nil {
		return io.ErrUnexpectedEOF
	}
	return b.opts.BodyFault(fault, fmt.Sprintf(format, args...))
}

// readFault returns the error for a body that cannot be read. Package net/http has no
// types for most of its own, and all are of the caller's making but those of deadlines,
// which this server sets, and of bodies that a handler has closed.
func (b *limitedBody) readFault(err error) error {
	switch r := b.exchange.request; {
	case err == nil, errors.Is(err, io.EOF), r == nil, errors.As(err, new(*connect.Error)):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, http.ErrBodyReadAfterClose):
		return err
	case r.Context().Err() != nil:
		return r.Context().Err()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return b.fault(BodyMalformed, "the body ended early")
	case strings.Contains(err.Error(), "Content-Length"):
		return b.fault(BodyMalformed, "the body is not as long as content-length says")
	case r.ProtoMajor == 1:
		return b.fault(BodyMalformed, "the body is not in valid chunks")
	default:
		return b.fault(BodyAborted, "the stream was closed by the client")
	}
}

// checkPrefix checks the prefix of a message before any of it is given out.
func (b *limitedBody) checkPrefix() error {
	f := b.frames
	switch flags := f.prefix[0]; {
	case flags > compressedFlag:
		return b.fault(BodyMalformed, "not an enveloped message: must begin with flags 0 or 1 and a length of 4 bytes, begins with %s",
			strconv.QuoteToASCII(string(f.prefix[:])))
	case flags == compressedFlag && !f.compression:
		return b.fault(BodyCompressed, "a message is compressed, and the request names no compression")
	case f.size() > b.limit:
		return b.opts.TooLarge(b.exchange.request, b.limit)
	}
	return nil
}

// namesCompression reports whether a request of enveloped messages names a compression.
func namesCompression(r *http.Request) bool {
	name := "Grpc-Encoding"
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/connect+") {
		name = "Connect-Content-Encoding"
	}
	coding := r.Header.Get(name)
	return coding != "" && coding != "identity"
}
