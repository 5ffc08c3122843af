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
	"github.com/yourorg/userservice/service/user"
)

// compressMinBytes is the least an answer has to have to be worth compressing.
const compressMinBytes = 1024

// limitedGzip decompresses up to a limit and then fails, instead of making whatever
// a few bytes ask for. Its errors are answers to the caller.
type limitedGzip struct {
	gzip  gzip.Reader
	limit int64
	left  int64
}

var _ connect.Decompressor = (*limitedGzip)(nil)

func (g *limitedGzip) Reset(source io.Reader) error {
	g.left = g.limit
	return gzipFault(g.gzip.Reset(source))
}

func (g *limitedGzip) Read(data []byte) (int, error) {
	if g.left <= 0 {
		var more [1]byte
		n, err := g.gzip.Read(more[:])
		if n > 0 {
			return 0, intercept.TooLarge(g.limit)
		}
		return 0, gzipFault(err)
	}
	n, err := g.gzip.Read(data[:min(int64(len(data)), g.left)])
	g.left -= int64(n)
	return n, gzipFault(err)
}

func (g *limitedGzip) Close() error { return gzipFault(g.gzip.Close()) }

// gzipFault makes an answer of what is wrong with compressed data; the transcoder
// would take it for a fault of the server.
func gzipFault(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if isAnswer(err) {
		return err // of the reader below
	}
	return bodyFault("the body is not what its Content-Encoding says")
}

// bodyFault is the answer to a body that cannot be read.
func bodyFault(message string) *connect.Error {
	answer, _ := intercept.ToConnect(user.InvalidFieldf("body", "%s", message))
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
}

func (b *limitedBody) Read(data []byte) (int, error) {
	if b.left < 0 {
		return 0, intercept.TooLarge(b.limit)
	}
	// One byte more than allowed, to tell the limit from what is beyond.
	n, err := b.ReadCloser.Read(data[:min(int64(len(data)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, intercept.TooLarge(b.limit)
	}
	return n, err
}

// takesGzip reports whether the caller takes a compressed answer.
func takesGzip(r *http.Request) bool {
	quality, _ := qualityOf(r.Header["Accept-Encoding"], "gzip", "*")
	return quality > 0
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
