package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/budget"
)

const (
	// smallBytes is what the base cost of a request covers.
	smallBytes = 4 << 10
	// inflaterBytes is the state of a decompressor.
	inflaterBytes = 48 << 10
	// badFrameBytes is how much of a frame is passed on that has no message.
	badFrameBytes = 64
)

// MessageOptions are the limits of request messages.
type MessageOptions struct {
	// TooLarge returns the error for a message beyond the limit, in bytes; TooComplex the
	// error for one that takes more than the limit when it is decoded; Overloaded the error
	// for one that the memory budget has no room for. All are required.
	TooLarge   func(r *http.Request, limit int64) error
	TooComplex func(limit int64) error
	Overloaded func(*http.Request) error
	// DecodedSize returns how many bytes a message takes when it is decoded, at most. The
	// descriptor is nil where it is unknown. Required.
	DecodedSize func(message protoreflect.MessageDescriptor, json bool, data []byte) int64
	// MaxDecoded bounds what DecodedSize returns.
	MaxDecoded int64
}

// Messages reads the messages of requests: it decompresses them and reserves what they
// take in memory before anything decodes them.
//
// connect reads messages into buffers from a pool, keeps the largest, and holds one while
// it waits for the next message or for the peer of a stream. So it is given a reference in
// the place of each message, which the codecs resolve.
type Messages struct {
	opts      MessageOptions
	inflaters sync.Pool // of *inflater
	secret    [secretBytes]byte

	mu   sync.Mutex
	last uint64
	held map[uint64]*Incoming // by reference
}

// NewMessages returns a reader of messages.
func NewMessages(opts MessageOptions) *Messages {
	return &Messages{
		opts: opts, inflaters: sync.Pool{New: func() any { return new(inflater) }}, held: make(map[uint64]*Incoming), secret: newSecret(),
	}
}

// Incoming is the body of a request as its handler reads it. Until Open it passes on what
// comes. It is for one goroutine at a time; Close and release are for any.
type Incoming struct {
	body     io.ReadCloser
	messages *Messages
	request  *http.Request
	memory   *budget.Reservation

	frames, gzip, json bool
	open, left         bool
	input              protoreflect.MessageDescriptor
	limit              int64

	prefix [prefixBytes]byte
	// FetchOnly has read begun bytes of the prefix of what follows the accepted message.
	accepted, ahead bool
	begun           int
	beginErr        error

	out    []byte // what Read returns next
	err    error  // what it returns after that
	buffer []byte // backs out

	// The message that out refers to.
	data    []byte
	kept    int64 // reserved for data
	decoded int64 // reserved for the decoded message

	// Under the lock of messages.
	reference uint64 // 0: none
	released  bool
}

// Receive makes the request's body an Incoming. The caller must call Release when the
// request has been handled.
func (m *Messages) Receive(r *http.Request) *Incoming {
	in := &Incoming{body: r.Body, messages: m, request: r, memory: budget.FromContext(r.Context())}
	kind := r.Header.Get("Content-Type")
	in.frames, in.json = enveloped(kind), strings.Contains(kind, "json")
	encoding := "Content-Encoding"
	switch {
	case strings.HasPrefix(kind, "application/grpc"):
		encoding = "Grpc-Encoding"
	case in.frames:
		encoding = "Connect-Content-Encoding"
	}
	if in.gzip = r.Header.Get(encoding) == "gzip"; in.gzip && !in.frames {
		r.Header.Del(encoding)
	}
	r.Body = in
	return in
}

// Open sets the limit of each message and the message type, which may be nil. It comes
// before the first Read.
func (in *Incoming) Open(input protoreflect.MessageDescriptor, limit int64) {
	in.open, in.input, in.limit = true, input, limit
}

// Read reads messages, or references to them.
func (in *Incoming) Read(p []byte) (int, error) {
	if !in.open {
		return in.body.Read(p)
	}
	if in.Fetch(); len(in.out) == 0 {
		return 0, in.err
	}
	n := copy(p, in.out)
	in.out = in.out[n:]
	return n, nil
}

// Fetch waits for the next message, so that the next Read does not.
func (in *Incoming) Fetch() {
	if !in.open || len(in.out) > 0 || in.err != nil {
		return
	}
	in.memory.Shrink(budget.Message, in.decoded)
	in.decoded = 0
	if in.frames {
		in.err = in.fetchFrame()
	} else if in.err = in.fetchBody(); in.err == nil {
		in.err = io.EOF
	}
}

// FetchOnly waits for the one message of a unary call and for the end of the body.
func (in *Incoming) FetchOnly() {
	if in.Fetch(); in.accepted && in.frames {
		in.begun, in.beginErr = readFull(in.body, in.prefix[:])
		in.ahead = true
	}
}

// Fetched returns the length of the message that Fetch has waited for.
func (in *Incoming) Fetched() int { return len(in.data) }

// Close closes the body below, unless it was left to net/http.
func (in *Incoming) Close() error {
	if in.left {
		return nil
	}
	return in.body.Close()
}

// Leave lets a response be sent that does not depend on the body. Over HTTP/1.1 net/http
// would read the rest of the body first, for Close and unless the connection is to be closed.
func (in *Incoming) Leave(header http.Header) {
	if in.request.ProtoMajor == 1 && in.request.ContentLength != 0 {
		in.left = true
		header.Set("Connection", "close")
	}
}

// Release forgets a message that was not decoded.
func (in *Incoming) Release() {
	in.messages.mu.Lock()
	defer in.messages.mu.Unlock()
	in.released = true
	delete(in.messages.held, in.reference)
}

func (in *Incoming) fetchBody() error {
	data, err := readAll(in.body, in.limit)
	if err != nil {
		return err
	}
	if int64(len(data)) > in.limit {
		return in.messages.opts.TooLarge(in.request, in.limit)
	}
	if in.gzip && len(data) > 0 {
		if data, err = in.messages.inflate(in.request, data, in.limit); err != nil {
			return in.refuse(err)
		}
	}
	if err := in.accept(data); err != nil {
		return err
	}
	in.out = in.refer(nil)
	return nil
}

func (in *Incoming) fetchFrame() error {
	n, err := in.readPrefix()
	if err != nil {
		return in.pass(n, nil, err)
	}
	flags, size := in.prefix[0], int64(binary.BigEndian.Uint32(in.prefix[1:]))
	if size > in.limit {
		return in.messages.opts.TooLarge(in.request, in.limit)
	}
	data, err := readSized(in.body, size)
	switch {
	case err != nil, flags > compressedFlag, flags == compressedFlag && !in.gzip && size > 0:
		return in.pass(n, data, err)
	case flags == compressedFlag && size > 0:
		if data, err = in.messages.inflate(in.request, data, in.limit); err != nil {
			return in.refuse(err)
		}
	}
	if err := in.accept(data); err != nil {
		return err
	}
	in.accepted = true
	in.prefix[0] = flags &^ compressedFlag
	in.out = in.refer(in.prefix[:])
	return nil
}

// readPrefix reads the prefix of the next message, unless FetchOnly has.
func (in *Incoming) readPrefix() (int, error) {
	if in.ahead {
		in.ahead = false
		return in.begun, in.beginErr
	}
	return readFull(in.body, in.prefix[:])
}

// refuse makes an answer to the caller of an error of inflate.
func (in *Incoming) refuse(err error) error {
	if errors.As(err, new(*GzipError)) {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return err
}

// pass passes on a frame that has no message, for connect to say what is wrong. No more
// than the beginning of its data is needed for that.
func (in *Incoming) pass(prefix int, data []byte, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err // the body itself says what is wrong
	}
	data = data[:min(len(data), badFrameBytes)]
	if err == nil {
		binary.BigEndian.PutUint32(in.prefix[1:], uint32(len(data)))
	}
	in.out = append(append(in.buffer[:0], in.prefix[:prefix]...), data...)
	return err
}

// accept reserves what the message takes while it is decoded and after that.
func (in *Incoming) accept(data []byte) error {
	if len(data) > int(in.limit) {
		return in.messages.opts.TooLarge(in.request, in.limit)
	}
	decoded, err := in.messages.reserve(in.request, in.input, in.json, data, 1)
	if err != nil {
		return err
	}
	in.data, in.decoded = data, decoded
	if len(data) > smallBytes {
		in.kept = int64(cap(data))
		if in.memory.Grow(budget.Decompressed, in.kept) != nil {
			return in.messages.opts.Overloaded(in.request)
		}
	}
	return nil
}

// reserve reserves what a message takes when it is decoded so many times.
func (m *Messages) reserve(
	r *http.Request, message protoreflect.MessageDescriptor, json bool, data []byte, times int64,
) (int64, error) {
	size := m.opts.DecodedSize(message, json, data) * times
	memory := budget.FromContext(r.Context())
	if size > m.opts.MaxDecoded*times {
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

// inflate decompresses a message. What it takes is reserved while it grows; when it
// returns it is for the caller to reserve.
func (m *Messages) inflate(r *http.Request, packed []byte, limit int64) ([]byte, error) {
	memory, reserved := budget.FromContext(r.Context()), int64(inflaterBytes)
	if memory.Grow(budget.Decompressed, reserved) != nil {
		return nil, m.opts.Overloaded(r)
	}
	defer func() { memory.Shrink(budget.Decompressed, reserved) }()
	z, _ := m.inflaters.Get().(*inflater)
	defer m.inflaters.Put(z)
	data, err := z.inflate(packed, limit, func(bytes int64) error {
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

// ReadBody reads the request's body, which is one message in JSON that will be decoded so
// many times. The guard limits and reserves it as it arrives.
// Its errors are those of the options, of the body, and *GzipError.
func (m *Messages) ReadBody(r *http.Request, gzip bool, limit, times int64) ([]byte, error) {
	data, err := readAll(r.Body, limit)
	if err != nil {
		return nil, err
	}
	if gzip && int64(len(data)) <= limit {
		if data, err = m.inflate(r, data, limit); err != nil {
			return nil, err
		}
	}
	if int64(len(data)) > limit {
		return nil, m.opts.TooLarge(r, limit)
	}
	if _, err := m.reserve(r, nil, true, data, times); err != nil {
		return nil, err
	}
	return data, nil
}

// readAll reads a body. Beyond the limit it stops.
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

// readSized reads size bytes. Its buffer grows with what comes, so that a peer that
// announces a large message and does not send it takes no memory.
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

// readFull fills p. Unlike io.ReadFull it returns the error of the reader as it is, which
// is io.EOF for a body that has ended.
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
