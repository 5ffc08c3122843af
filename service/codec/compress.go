package codec

import (
	"bytes"
	"compress/gzip"
	"io"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/fair"
)

const (
	// CompressMinBytes is the minimum size of a compressed response. Smaller ones fit in a packet
	// anyway.
	CompressMinBytes = 1 << 10
	// maxCompressors bounds the number of compressors, 0.8 MB each.
	maxCompressors = 16
	// maxKeptBuffer is the largest buffer that a small response may hold while its client does not
	// read.
	maxKeptBuffer = 64 << 10
)

// Compressors is the pool of gzip writers, one per processor. A goroutine must not wait for a
// client while it holds one.
type Compressors struct{ free chan *gzip.Writer }

// NewCompressors returns a pool. Writers are allocated on first use.
func NewCompressors() *Compressors {
	n := min(fair.Processors(), maxCompressors)
	c := &Compressors{free: make(chan *gzip.Writer, n)}
	for range n {
		c.free <- nil
	}
	return c
}

// New returns a compressor. It holds a writer of the pool between the first Write and Close.
func (c *Compressors) New() connect.Compressor { return &compressor{set: c} }

// Append appends the compressed data to dst.
func (c *Compressors) Append(dst, data []byte) []byte {
	to, packed := bytes.NewBuffer(dst), c.New()
	packed.Reset(struct{ io.Writer }{to}) // Reset would drop a large buffer of connect, with dst
	_, _ = packed.Write(data)             // a buffer returns no error
	_ = packed.Close()
	return to.Bytes()
}

type compressor struct {
	set *Compressors
	to  io.Writer
	gz  *gzip.Writer
}

// Reset starts another message.
func (c *compressor) Reset(to io.Writer) {
	if b, ok := to.(*bytes.Buffer); ok && b.Cap() > maxKeptBuffer {
		*b = bytes.Buffer{} // a large buffer from connect's pool
	}
	c.to = to
}

func (c *compressor) Write(p []byte) (int, error) {
	c.take()
	return c.gz.Write(p)
}

func (c *compressor) take() {
	if c.gz != nil {
		return
	}
	if c.gz = <-c.set.free; c.gz == nil {
		c.gz = gzip.NewWriter(c.to)
		return
	}
	c.gz.Reset(c.to)
}

// Close ends the message and returns the writer to the pool.
func (c *compressor) Close() error {
	c.take() // an empty message has a gzip header too
	err := c.gz.Close()
	c.gz.Reset(io.Discard)
	c.set.free <- c.gz
	c.gz = nil
	return err
}

// maxGetBytes bounds a message in the query of a Connect GET after decompression. The URL is
// bounded, so only decompression bombs are larger.
const maxGetBytes = 64 << 10

// Gzip returns the option for gzip. Request messages are decompressed by Incoming, except those of
// a Connect GET.
func (c *Compressors) Gzip(limit int64, tooLarge func(limit int64) error) connect.HandlerOption {
	limit = min(limit, maxGetBytes)
	return connect.WithHandlerOptions(
		connect.WithCompression("gzip",
			func() connect.Decompressor { return &queryDecompressor{limit: limit, tooLarge: tooLarge} },
			c.New),
		connect.WithCompressMinBytes(CompressMinBytes),
	)
}

// queryDecompressor decompresses a message in a query, up to the limit.
type queryDecompressor struct {
	gzip.Reader

	limit, left int64
	tooLarge    func(limit int64) error
}

// Reset starts another message.
func (d *queryDecompressor) Reset(source io.Reader) error {
	d.left = d.limit
	return d.Reader.Reset(source)
}

func (d *queryDecompressor) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p[:min(int64(len(p)), d.left+1)])
	if d.left -= int64(n); d.left < 0 {
		return n, d.tooLarge(d.limit)
	}
	return n, err
}

// Close ends the message.
func (d *queryDecompressor) Close() error {
	if d.left == d.limit { // Reset failed, or nothing was read
		return nil
	}
	return d.Reader.Close()
}
