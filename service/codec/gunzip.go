package codec

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// gzipSlack is the maximum of compressed bytes without as many bytes of output. Regular compression
// adds a few bytes per thousand.
const gzipSlack = 64 << 10

var (
	errNoGain      = errors.New("compressed data without output")
	errBeyondLimit = errors.New("decompressed message over the limit")
)

// GzipError reports invalid gzip data.
type GzipError struct{ err error }

func (e *GzipError) Error() string { return fmt.Sprintf("gzip: %v", e.err) }

func (e *GzipError) Unwrap() error { return e.err }

// inflater decompresses messages. It stops when the output exceeds the limit, and fails early on
// input that costs time without output.
type inflater struct {
	gzip.Reader

	source *bufio.Reader
	in     int64 // compressed bytes since the last gzipSlack bytes of output
	out    int64
}

const (
	firstChunk = 4 << 10
	lastChunk  = 256 << 10
)

// inflate returns the decompressed data, or errBeyondLimit. reserve is called before memory is
// allocated.
func (z *inflater) inflate(compressed []byte, limit int64, reserve func(bytes int64) error) ([]byte, error) {
	if z.source == nil {
		z.source = bufio.NewReader(nil)
	}
	z.source.Reset(bytes.NewReader(compressed))
	z.in, z.out = 0, 0
	defer z.source.Reset(nil)
	if err := z.Reset((*checkedSource)(z)); err != nil {
		return nil, &GzipError{trimGzipError(err)}
	}
	var chunks [][]byte // a growing buffer would leave more garbage
	total := int64(0)
	for size := int64(firstChunk); ; size = min(2*size, lastChunk) {
		size = min(size, limit+1-total)
		if err := reserve(size); err != nil {
			return nil, err
		}
		chunk, err := z.fill(make([]byte, 0, size))
		chunks = append(chunks, chunk)
		total += int64(len(chunk))
		switch {
		case total > limit:
			return nil, errBeyondLimit
		case errors.Is(err, io.EOF):
			return join(chunks, total, reserve)
		case err != nil:
			return nil, &GzipError{trimGzipError(err)}
		}
	}
}

// fill decompresses until the chunk is full.
func (z *inflater) fill(chunk []byte) ([]byte, error) {
	for len(chunk) < cap(chunk) {
		n, err := z.Read(chunk[len(chunk):cap(chunk)])
		chunk = chunk[:len(chunk)+n]
		if z.out += int64(n); z.out >= gzipSlack {
			z.in, z.out = 0, 0
		}
		if err != nil {
			return chunk, err
		}
	}
	return chunk, nil
}

func join(chunks [][]byte, total int64, reserve func(bytes int64) error) ([]byte, error) {
	if len(chunks) == 1 {
		return chunks[0], nil
	}
	if err := reserve(total); err != nil {
		return nil, err
	}
	return bytes.Join(chunks, nil), nil
}

// trimGzipError removes the prefix that GzipError adds.
func trimGzipError(err error) error {
	switch {
	case errors.Is(err, gzip.ErrHeader):
		return errors.New("invalid header")
	case errors.Is(err, gzip.ErrChecksum):
		return errors.New("invalid checksum")
	}
	return err
}

// checkedSource is the source of the decompressor, which may otherwise consume any amount of input
// within one Read without output.
type checkedSource inflater

func (s *checkedSource) Read(p []byte) (int, error) {
	if s.in > s.out+gzipSlack {
		return 0, errNoGain
	}
	n, err := s.source.Read(p)
	s.in += int64(n)
	return n, err
}

// ReadByte reads one compressed byte.
func (s *checkedSource) ReadByte() (byte, error) {
	if s.in > s.out+gzipSlack {
		return 0, errNoGain
	}
	b, err := s.source.ReadByte()
	if err == nil {
		s.in++
	}
	return b, err
}
