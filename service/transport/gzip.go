package transport

import (
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

// Gunzip inflates up to a limit and then fails, so that a small message cannot
// become a large one, in memory or in work.
type Gunzip struct {
	reader   gzip.Reader
	limit    int64
	tooLarge func(limit int64) error

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
	n, err := g.reader.Read(p)
	g.read += int64(n)
	if g.read > g.limit {
		n--
		err = g.tooLarge(g.limit)
	}
	g.err = err
	return n, err
}

// Close ends the inflation; the source stays open.
func (g *Gunzip) Close() error {
	if !g.ready {
		return nil
	}
	return g.reader.Close()
}

// Reset begins with another source.
func (g *Gunzip) Reset(source io.Reader) error {
	g.read, g.err = 0, nil
	err := g.reader.Reset(source)
	g.ready = g.ready || err == nil
	return err
}
