package codec

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/jsonpb"
	"github.com/yourorg/userservice/service/protocol"
)

const (
	// smallBytes is the message size covered by the base cost of a request.
	smallBytes = 4 << 10
	// inflaterBytes is the size of a decompressor.
	inflaterBytes = 48 << 10
	// badFrameBytes is how much of an invalid frame is passed to connect.
	badFrameBytes = 64
)

// MessageOptions are the limits of request messages.
type MessageOptions struct {
	// TooLarge returns the error for a message over the limit, TooComplex the error for a message
	// over the limit of decoded size, Overloaded the error for a message without memory. All are
	// required.
	TooLarge   func(r *http.Request, limit int64) error
	TooComplex func(limit int64) error
	Overloaded func(*http.Request) error
	// NoMemory responds to a request whose response has no memory. Required by Handler.
	NoMemory func(http.ResponseWriter, *http.Request)
	// DecodedSize returns an upper bound of the memory of a decoded message. The descriptor may be
	// nil. Required.
	DecodedSize func(message protoreflect.MessageDescriptor, json bool, data []byte) int64
	// MaxDecoded bounds DecodedSize.
	MaxDecoded int64
}

// Messages reads request messages: it decompresses them and reserves their memory before they are
// decoded.
//
// connect reads messages into pooled buffers, keeps the largest, and holds one while it waits for
// the next message or for a client. Therefore connect reads a reference in place of each message,
// which the codecs resolve.
type Messages struct {
	opts      MessageOptions
	inflaters sync.Pool
	secret    [secretBytes]byte

	mu   sync.Mutex
	last uint64
	held map[uint64]*Incoming // by reference
}

// NewMessages returns Messages with the limits.
func NewMessages(opts MessageOptions) *Messages {
	return &Messages{
		opts: opts, inflaters: sync.Pool{New: func() any { return new(inflater) }}, held: make(map[uint64]*Incoming), secret: newSecret(),
	}
}

// Incoming is the request body that the handler reads. Before Open it passes the body through. It
// is for one goroutine at a time, except Close and Release.
type Incoming struct {
	body     io.ReadCloser
	messages *Messages
	request  *http.Request
	memory   *budget.Reservation

	frames, gzip, json bool
	open, skipClose    bool
	input              protoreflect.MessageDescriptor
	limit              int64

	prefix [PrefixBytes]byte
	// FetchOnly has read nextBytes bytes of the prefix after the accepted message. referred is set when out refers to the message.
	accepted, hasNext, referred bool
	nextBytes                   int
	nextErr                     error

	out    []byte                                                 // returned by the next Read
	err    error                                                  // returned after out
	buffer [PrefixBytes + max(referenceBytes, badFrameBytes)]byte // memory of out

	// The message that out refers to.
	data            []byte
	reservedData    int64 // bytes reserved for data
	reservedDecoded int64 // bytes reserved for the decoded message

	// Guarded by messages.mu.
	reference uint64 // 0: none
	released  bool
}

// Receive replaces the request's body by an Incoming. The caller must call Release after the
// request.
func (m *Messages) Receive(r *http.Request) *Incoming {
	in := &Incoming{body: r.Body, messages: m, request: r, memory: budget.FromContext(r.Context())}
	kind := r.Header.Get("Content-Type")
	spoken := protocol.Of(r)
	in.frames, in.json = spoken.IsEnveloped(), strings.Contains(kind, "json")
	encoding := spoken.EncodingHeader()
	if in.gzip = r.Header.Get(encoding) == "gzip"; in.gzip && !in.frames {
		r.Header.Del(encoding)
	}
	r.Body = in
	return in
}

// Open sets the limit of a message and the message type, which may be nil. It must precede the
// first Read.
func (in *Incoming) Open(input protoreflect.MessageDescriptor, limit int64) {
	in.open, in.input, in.limit = true, input, limit
}

// Read returns messages or references to them.
func (in *Incoming) Read(p []byte) (int, error) {
	if !in.open {
		return in.body.Read(p)
	}
	if in.Fetch(); in.accepted && !in.referred {
		in.refer()
	}
	if len(in.out) == 0 {
		return 0, in.err
	}
	n := copy(p, in.out)
	in.out = in.out[n:]
	return n, nil
}

// Fetch waits for the next message, so that the next Read does not block. For a message that is not
// small it acquires the request's slot.
func (in *Incoming) Fetch() {
	if !in.open || len(in.out) > 0 || in.err != nil || in.accepted && !in.referred {
		return
	}
	in.accepted, in.referred = false, false
	in.memory.Shrink(budget.Message, in.reservedDecoded)
	in.reservedDecoded = 0
	if in.frames {
		in.err = in.fetchFrame()
	} else if in.err = in.fetchBody(); in.err == nil {
		in.err = io.EOF
	}
}

// FetchOnly waits for the message of a unary call and for the end of the body.
func (in *Incoming) FetchOnly() {
	if in.Fetch(); in.accepted && in.frames && !in.hasNext {
		in.nextBytes, in.nextErr = readFull(in.body, in.prefix[:])
		in.hasNext = true
	}
}

// Fetched returns the length of the message read by Fetch.
func (in *Incoming) Fetched() int { return len(in.data) }

// Close closes the underlying body, unless SkipBody was called.
func (in *Incoming) Close() error {
	if in.skipClose {
		return nil
	}
	return in.body.Close()
}

// SkipBody lets a response be sent before the body was read. Over HTTP/1.1 net/http would read the
// rest first, on Close, and unless the connection is closed after the response.
func (in *Incoming) SkipBody(header http.Header) {
	if in.request.ProtoMajor == 1 && in.request.ContentLength != 0 {
		in.skipClose = true
		header.Set("Connection", "close")
	}
}

// Release releases a message that was not decoded.
func (in *Incoming) Release() {
	in.messages.mu.Lock()
	defer in.messages.mu.Unlock()
	in.released = true
	delete(in.messages.held, in.reference)
}

func (in *Incoming) fetchBody() error {
	data, err := in.messages.readBody(in.request, in.body, in.gzip, in.limit)
	if err != nil {
		return in.gzipError(err)
	}
	return in.accept(data)
}

func (in *Incoming) fetchFrame() error {
	n, err := in.readPrefix()
	if err != nil {
		return in.passOn(n, nil, err)
	}
	flags, size := in.prefix[0], int64(binary.BigEndian.Uint32(in.prefix[1:]))
	if size > in.limit {
		return in.messages.opts.TooLarge(in.request, in.limit)
	}
	data, err := readSized(in.body, size)
	acquireFor(in.request, len(data), in.gzip)
	switch {
	case err != nil, flags > CompressedFlag, flags == CompressedFlag && !in.gzip && size > 0:
		return in.passOn(n, data, err)
	case flags == CompressedFlag && size > 0:
		if data, err = in.messages.inflate(in.request, data, in.limit); err != nil {
			return in.gzipError(err)
		}
	}
	return in.accept(data)
}

// isOnly reports whether FetchOnly has read exactly one message.
func (in *Incoming) isOnly() bool {
	if !in.accepted || !in.frames {
		return in.accepted
	}
	return in.hasNext && in.nextBytes == 0 && errors.Is(in.nextErr, io.EOF)
}

// decode decodes the message that was read.
func (in *Incoming) decode(message proto.Message) error {
	if in.json {
		return jsonpb.Unmarshal(in.data, message)
	}
	return proto.Unmarshal(in.data, message)
}

// readPrefix reads the prefix of the next message, unless FetchOnly has.
func (in *Incoming) readPrefix() (int, error) {
	if in.hasNext {
		in.hasNext = false
		return in.nextBytes, in.nextErr
	}
	return readFull(in.body, in.prefix[:])
}

// gzipError converts an error of inflate to an error of the call.
func (in *Incoming) gzipError(err error) error {
	if errors.As(err, new(*GzipError)) {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return err
}

// passOn passes an invalid frame to connect, which returns the error for it. The beginning of its
// data is sufficient.
func (in *Incoming) passOn(prefix int, data []byte, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err // the body returns the specific error
	}
	data = data[:min(len(data), badFrameBytes)]
	if err == nil {
		binary.BigEndian.PutUint32(in.prefix[1:], uint32(len(data)))
	}
	in.out = append(append(in.buffer[:0], in.prefix[:prefix]...), data...)
	return err
}

// accept reserves the memory of the message and of its decoded form.
func (in *Incoming) accept(data []byte) error {
	decoded, err := in.messages.reserve(in.request, in.input, in.json, data)
	if err != nil {
		return err
	}
	in.data, in.reservedDecoded, in.accepted = data, decoded, true
	if len(data) > smallBytes {
		in.reservedData = int64(cap(data))
		if in.memory.Grow(budget.Decompressed, in.reservedData) != nil {
			return in.messages.opts.Overloaded(in.request)
		}
	}
	return nil
}

// reserve reserves the memory of the decoded message.
func (m *Messages) reserve(r *http.Request, message protoreflect.MessageDescriptor, json bool, data []byte) (int64, error) {
	size := m.opts.DecodedSize(message, json, data)
	memory := budget.FromContext(r.Context())
	if size > m.opts.MaxDecoded {
		return 0, m.opts.TooComplex(m.opts.MaxDecoded)
	}
	if size <= smallBytes {
		return 0, nil
	}
	if memory.Grow(budget.Message, size) != nil {
		return 0, m.opts.Overloaded(r)
	}
	return size, nil
}

// inflate decompresses a message. Its memory is reserved until it returns; the caller must reserve
// the result.
func (m *Messages) inflate(r *http.Request, compressed []byte, limit int64) ([]byte, error) {
	memory, reserved := budget.FromContext(r.Context()), int64(inflaterBytes)
	if memory.Grow(budget.Decompressed, reserved) != nil {
		return nil, m.opts.Overloaded(r)
	}
	defer func() { memory.Shrink(budget.Decompressed, reserved) }()
	z, _ := m.inflaters.Get().(*inflater)
	defer m.inflaters.Put(z)
	data, err := z.inflate(compressed, limit, func(bytes int64) error {
		if memory.Grow(budget.Decompressed, bytes) != nil {
			return m.opts.Overloaded(r)
		}
		reserved += bytes
		return nil
	})
	if errors.Is(err, errBeyondLimit) {
		return nil, m.opts.TooLarge(r, limit)
	}
	return data, err
}

// ReadBody reads the request body, a JSON message. The guard limits and reserves it as it arrives.
// Errors are those of the options, of the body, and *GzipError.
func (m *Messages) ReadBody(r *http.Request, gzip bool, limit int64) ([]byte, error) {
	data, err := m.readBody(r, r.Body, gzip, limit)
	if err != nil {
		return nil, err
	}
	if _, err := m.reserve(r, nil, true, data); err != nil {
		return nil, err
	}
	return data, nil
}

// readBody reads and decompresses a body that is one message.
func (m *Messages) readBody(r *http.Request, body io.Reader, gzip bool, limit int64) ([]byte, error) {
	data, err := readAll(body, limit)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, m.opts.TooLarge(r, limit)
	}
	acquireFor(r, len(data), gzip)
	if gzip && len(data) > 0 {
		return m.inflate(r, data, limit)
	}
	return data, nil
}

// acquireFor acquires the request's slot before a message is decompressed or measured, which takes
// longer than to wait for the slot, unless the message is small.
func acquireFor(r *http.Request, bytes int, gzip bool) {
	if bytes > smallBytes || gzip && bytes > 0 {
		fair.FromContext(r.Context()).Acquire()
	}
}

// readAll reads a body, and stops after the limit.
func readAll(body io.Reader, limit int64) ([]byte, error) {
	data := make([]byte, 0, 512)
	for {
		n, err := body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF), err == nil && int64(len(data)) > limit:
			return data, nil
		case err != nil:
			return nil, err
		case len(data) == cap(data):
			data = append(make([]byte, 0, 2*cap(data)), data...)
		}
	}
}

// readSized reads size bytes. The buffer grows with the input, so announcing a large message
// without sending it costs no memory.
func readSized(body io.Reader, size int64) ([]byte, error) {
	data := make([]byte, 0, min(size, 4<<10))
	for int64(len(data)) < size {
		if len(data) == cap(data) {
			data = append(make([]byte, 0, min(2*int64(cap(data)), size)), data...)
		}
		n, err := readFull(body, data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err != nil {
			return data, err
		}
	}
	return data, nil
}

// readFull fills p. Unlike io.ReadFull it returns the reader's error unchanged, io.EOF at the end
// of the body.
func readFull(body io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var read int
		read, err = body.Read(p[n:])
		n += read
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}
