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

	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/protocol"
)

// BodyError is a kind of invalid request body.
type BodyError int

const (
	// BodyMalformed is a body that violates its protocol or its header.
	BodyMalformed BodyError = iota
	// BodyCompressed is a compressed message in a request without a compression header.
	BodyCompressed
	// BodyAborted is a body whose stream or connection was closed by the client.
	BodyAborted
)

// invalid returns the error for an invalid body.
func (b *limitedBody) invalid(kind BodyError, format string, args ...any) error {
	b.exchange.invalidBody.Store(true)
	if b.opts.InvalidBody == nil {
		return io.ErrUnexpectedEOF
	}
	return b.opts.InvalidBody(kind, fmt.Sprintf(format, args...))
}

// mapError maps an error of reading the body. Most errors of net/http have no types. All are caused
// by the client except deadlines set by this server and bodies closed by a handler.
func (b *limitedBody) mapError(err error) error {
	switch r := b.request; {
	case err == nil, errors.Is(err, io.EOF), r == nil, errors.As(err, new(*connect.Error)):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, http.ErrBodyReadAfterClose):
		return err
	case r.Context().Err() != nil:
		return r.Context().Err()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return b.invalid(BodyMalformed, "body ended early")
	case strings.Contains(err.Error(), "Content-Length"):
		return b.invalid(BodyMalformed, "body length differs from content-length")
	case r.ProtoMajor == 1:
		return b.invalid(BodyMalformed, "body has invalid chunked encoding")
	default:
		return b.invalid(BodyAborted, "stream closed by the client")
	}
}

// checkPrefix validates the prefix of a message before any of it is returned.
func (b *limitedBody) checkPrefix() error {
	f := b.frames
	switch flags := f.prefix[0]; {
	case flags > codec.CompressedFlag:
		return b.invalid(BodyMalformed, "not an enveloped message: must begin with flags 0 or 1 and a length of 4 bytes, begins with %s",
			strconv.QuoteToASCII(string(f.prefix[:])))
	case flags == codec.CompressedFlag && !f.compression:
		return b.invalid(BodyCompressed, "compressed message in a request without a compression header")
	case f.size() > b.limit:
		return b.opts.TooLarge(b.request, b.limit)
	}
	return nil
}

// namesCompression reports whether a request of enveloped messages has a compression header.
func namesCompression(r *http.Request) bool {
	encoding := r.Header.Get(protocol.Of(r).EncodingHeader())
	return encoding != "" && encoding != "identity"
}
