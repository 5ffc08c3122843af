package rest

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// compressMinBytes is the least an answer has to have to be worth compressing.
const compressMinBytes = 1024

// gunzip decompresses up to the limit of a message. Its errors are answers to the
// caller.
type gunzip struct{ limited *transport.Gunzip }

var _ connect.Decompressor = gunzip{}

func newGunzip(limit int64, tooLarge func(limit int64) error) gunzip {
	return gunzip{transport.NewGunzip(limit, tooLarge)}
}

// Reset begins with another source.
func (g gunzip) Reset(source io.Reader) error { return gzipFault(g.limited.Reset(source)) }

// Read decompresses.
func (g gunzip) Read(data []byte) (int, error) {
	n, err := g.limited.Read(data)
	return n, gzipFault(err)
}

// Close ends the decompression.
func (g gunzip) Close() error { return gzipFault(g.limited.Close()) }

// gzipFault makes an answer of what is wrong with compressed data; the transcoder
// would take it for a fault of the server.
func gzipFault(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if isAnswer(err) {
		return err // of the reader below
	}
	return bodyFault("is not what its Content-Encoding says")
}

// bodyFault is the answer to a body that cannot be read.
func bodyFault(message string) *connect.Error {
	answer, _ := intercept.ToConnect(user.InvalidFieldf(bodyName, "%s", message))
	return answer
}

func isAnswer(err error) bool {
	var answer *connect.Error
	return errors.As(err, &answer)
}

// limitedBody reads a request's body up to a limit.
type limitedBody struct {
	io.ReadCloser

	limit, left int64
	tooLarge    func(limit int64) error
	err         error // once there is too much
}

// Read reads within the limit.
func (b *limitedBody) Read(data []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	// One byte more than allowed, to tell the limit from what is beyond.
	n, err := b.ReadCloser.Read(data[:min(int64(len(data)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		b.err = b.tooLarge(b.limit)
		return 0, b.err
	}
	return n, err
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

// compressors keeps writers, which are large, for the next answer.
type compressors struct{ pool sync.Pool }

func (c *compressors) get(w io.Writer) *gzip.Writer {
	if writer, ok := c.pool.Get().(*gzip.Writer); ok {
		writer.Reset(w)
		return writer
	}
	return gzip.NewWriter(w)
}

func (c *compressors) put(writer *gzip.Writer) { c.pool.Put(writer) }
