package transport

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
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

const (
	// ahead is the part of the limit, one in so many, beyond which a message is measured
	// before more of it is given out.
	ahead = 4
	// slack is how many bytes a part of a compressed message may have beyond what it
	// inflates to. Honest compression adds a few bytes in a thousand.
	slack = 64 << 10
)

// errNoGain is the error for what is larger compressed than inflated: such data cost
// work, byte for byte, a hundred times what honest data do.
var errNoGain = errors.New("gzip: the message is larger compressed than it is")

// Gunzip inflates up to a limit and then fails, so that a small message cannot
// become a large one, in memory or in work.
//
// Nor can it become work alone: what inflates to nothing, which is to say to less than it
// takes compressed, fails soon.
//
// Whoever reads into a buffer that doubles as it grows holds four times the limit before
// it is told that there is too much. So a message that is in memory is inflated to
// nowhere first, once it has come to a part of the limit.
type Gunzip struct {
	reader   gainReader
	limit    int64
	tooLarge func(limit int64) error
	measurer gainReader
	packed   []byte // the source, if it is in memory and has not been measured

	err   error
	ready bool // the reader has seen a source
}

// gainReader inflates as long as that is worth it.
type gainReader struct {
	gzip.Reader

	source  *bufio.Reader
	out     int64
	in      int64 // taken from the source for the present part
	outPart int64 // what that has given
}

// Reset begins with another source.
func (r *gainReader) Reset(source io.Reader) error {
	if r.source == nil {
		r.source = bufio.NewReader(source)
	} else {
		r.source.Reset(source)
	}
	r.in, r.out, r.outPart = 0, 0, 0
	return r.Reader.Reset((*gainSource)(r))
}

// Read inflates.
func (r *gainReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.out += int64(n)
	if r.outPart += int64(n); r.outPart >= slack {
		r.in, r.outPart = 0, 0
	}
	return n, err
}

// gainSource is the source as the inflating reader sees it, which within one Read of its
// own may take any number of bytes without giving one.
type gainSource gainReader

// Read takes bytes.
func (s *gainSource) Read(p []byte) (int, error) {
	if s.in > s.outPart+slack {
		return 0, errNoGain
	}
	n, err := s.source.Read(p)
	s.in += int64(n)
	return n, err
}

// ReadByte takes one.
func (s *gainSource) ReadByte() (byte, error) {
	if s.in > s.outPart+slack {
		return 0, errNoGain
	}
	b, err := s.source.ReadByte()
	if err == nil {
		s.in++
	}
	return b, err
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
	if room := g.limit - g.reader.out; int64(len(p)) > room+1 {
		p = p[:room+1]
	}
	if g.packed != nil && g.reader.out > g.limit/ahead {
		large := g.measure()
		if g.packed = nil; large {
			g.err = g.tooLarge(g.limit)
			return 0, g.err
		}
	}
	n, err := g.reader.Read(p)
	if g.reader.out > g.limit {
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
	g.err, g.packed = nil, nil
	if b, ok := source.(*bytes.Buffer); ok {
		g.packed = b.Bytes()
	}
	err := g.reader.Reset(source)
	g.ready = g.ready || err == nil
	return err
}
