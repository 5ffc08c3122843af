package transport

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// gzipSlack is how many compressed bytes may come without as many bytes of output. Honest
// compression adds a few bytes in a thousand.
const gzipSlack = 64 << 10

var (
	errNoGain      = errors.New("the message is larger compressed than it is")
	errBeyondLimit = errors.New("the message is too large")
)

// GzipError reports data that is not what its content coding says.
type GzipError struct{ err error }

// Error returns the text of the error.
func (e *GzipError) Error() string { return fmt.Sprintf("gzip: %v", e.err) }

// Unwrap returns the error of the decompressor.
func (e *GzipError) Unwrap() error { return e.err }

// inflater decompresses messages. It stops as soon as the output exceeds a limit, and
// fails early on data that cost work without output.
type inflater struct {
	gzip.Reader

	source *bufio.Reader
	in     int64 // bytes read since the last gzipSlack bytes of output
	out    int64
}

const (
	firstChunk = 4 << 10
	lastChunk  = 256 << 10
)

// inflate returns the decompressed data, or errBeyondLimit as soon as there are more. reserve
// is called before memory is allocated.
func (z *inflater) inflate(packed []byte, limit int64, reserve func(bytes int64) error) ([]byte, error) {
	if z.source == nil {
		z.source = bufio.NewReader(nil)
	}
	z.source.Reset(bytes.NewReader(packed))
	z.in, z.out = 0, 0
	defer z.source.Reset(nil)
	if err := z.Reset((*gainSource)(z)); err != nil {
		return nil, &GzipError{plainGzip(err)}
	}
	var chunks [][]byte // a buffer that grows by copying would leave as much garbage
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
		case errors.Is(err, io.EOF):
			return join(chunks, total, reserve)
		case err != nil:
			return nil, &GzipError{plainGzip(err)}
		case total > limit:
			return nil, errBeyondLimit
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

// plainGzip leaves out what the text of GzipError begins with.
func plainGzip(err error) error {
	switch {
	case errors.Is(err, gzip.ErrHeader):
		return errors.New("invalid header")
	case errors.Is(err, gzip.ErrChecksum):
		return errors.New("invalid checksum")
	}
	return err
}

// gainSource is the source as the decompressor sees it, which within one Read may consume
// any number of bytes without output.
type gainSource inflater

// Read reads compressed bytes.
func (s *gainSource) Read(p []byte) (int, error) {
	if s.in > s.out+gzipSlack {
		return 0, errNoGain
	}
	n, err := s.source.Read(p)
	s.in += int64(n)
	return n, err
}

// ReadByte reads one compressed byte.
func (s *gainSource) ReadByte() (byte, error) {
	if s.in > s.out+gzipSlack {
		return 0, errNoGain
	}
	b, err := s.source.ReadByte()
	if err == nil {
		s.in++
	}
	return b, err
}
