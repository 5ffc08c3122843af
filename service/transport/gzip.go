package transport

import (
	"bytes"
	"compress/gzip"
	"io"

	"connectrpc.com/connect"
)

// Gzip returns the option that compresses answers, and inflates requests up to the
// limit. Answers below a KiB are sent as they are: a packet is no smaller for less.
func Gzip(limit int64, tooLarge func(limit int64) error) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCompression("gzip",
			func() connect.Decompressor { return NewGunzip(limit, tooLarge) },
			func() connect.Compressor { return gzip.NewWriter(io.Discard) }),
		connect.WithCompressMinBytes(1<<10),
	)
}

// ahead is the part of the limit, one in so many, beyond which a message is measured
// before more of it is given out.
const ahead = 4

// Gunzip inflates up to a limit and then fails, so that a small message cannot
// become a large one, in memory or in work.
//
// Whoever reads into a buffer that doubles as it grows holds four times the limit before
// it is told that there is too much. So a message that is in memory is inflated to
// nowhere first, once it has come to a part of the limit.
type Gunzip struct {
	reader   gzip.Reader
	limit    int64
	tooLarge func(limit int64) error
	measurer gzip.Reader
	packed   []byte // the source, if it is in memory and has not been measured

	read  int64
	err   error
	ready bool // the reader has seen a source
}

// NewGunzip returns a decompressor that gives the error for what is beyond the
// limit. Reset comes before the first Read.
func NewGunzip(limit int64, tooLarge func(limit int64) error) *Gunzip {
	return &Gunzip{limit: limit, tooLarge: tooLarge}
}

// Read inflates.
func (g *Gunzip) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	if room := g.limit - g.read; int64(len(p)) > room+1 {
		p = p[:room+1]
	}
	if g.packed != nil && g.read > g.limit/ahead {
		large := g.measure()
		if g.packed = nil; large {
			g.err = g.tooLarge(g.limit)
			return 0, g.err
		}
	}
	n, err := g.reader.Read(p)
	g.read += int64(n)
	if g.read > g.limit {
		n--
		err = g.tooLarge(g.limit)
	}
	g.err = err
	return n, err
}

// measure reports whether the source inflates to more than the limit. What else is wrong
// with it shows when it is read.
func (g *Gunzip) measure() bool {
	if err := g.measurer.Reset(bytes.NewReader(g.packed)); err != nil {
		return false
	}
	n, _ := io.Copy(io.Discard, io.LimitReader(&g.measurer, g.limit+1))
	return n > g.limit
}

// Close ends the inflation; the source stays open.
func (g *Gunzip) Close() error {
	g.packed = nil
	if !g.ready {
		return nil
	}
	return g.reader.Close()
}

// Reset begins with another source.
func (g *Gunzip) Reset(source io.Reader) error {
	g.read, g.err, g.packed = 0, nil, nil
	if b, ok := source.(*bytes.Buffer); ok {
		g.packed = b.Bytes()
	}
	err := g.reader.Reset(source)
	g.ready = g.ready || err == nil
	return err
}
