package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/httperror"
)

// Options configure a handler. All are required.
type Options struct {
	Methods Methods
	// Streams are server streams, served over gRPC.
	Streams Methods
	// Next is the Connect handler of all RPCs.
	Next http.Handler
	// Authorize returns an error if the caller may not call the procedure.
	Authorize func(ctx context.Context, procedure string) error
	// MaxMessageBytes returns the size limit of the request of a procedure.
	MaxMessageBytes func(procedure string) int64
	// Compressors compress responses.
	Compressors *codec.Compressors
}

// NewHandler returns a handler of RPCs. It must run below codec.Messages.Handler.
func NewHandler(opts Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := opts.accept(r)
		switch {
		case c.method == nil:
		case c.method.serve != nil && c.serveStream(w, r), c.method.call != nil && c.serve(w, r):
			return
		}
		opts.Next.ServeHTTP(w, r)
	})
}

// A call is a request that this package serves.
type call struct {
	opts   *Options
	method *Method
	format *format
	gzip   bool // the client accepts compressed responses
	// timeout of the client, if hasTimeout.
	timeout    time.Duration
	hasTimeout bool
}

// A format is a protocol with an encoding of messages.
type format struct {
	protocol string // of connect
	json     bool
	frames   bool // messages have a prefix, and the status is in trailers

	encoding, acceptEncoding, timeout string // names of headers
	parseTimeout                      func(string) (time.Duration, bool)
}

var (
	grpc = &format{
		protocol: connect.ProtocolGRPC, frames: true,
		encoding: "Grpc-Encoding", acceptEncoding: "Grpc-Accept-Encoding", timeout: "Grpc-Timeout", parseTimeout: grpcTimeout,
	}
	connectProto = &format{
		protocol: connect.ProtocolConnect,
		encoding: "Content-Encoding", acceptEncoding: "Accept-Encoding", timeout: "Connect-Timeout-Ms", parseTimeout: connectTimeout,
	}
	connectJSON = &format{
		protocol: connect.ProtocolConnect, json: true,
		encoding: "Content-Encoding", acceptEncoding: "Accept-Encoding", timeout: "Connect-Timeout-Ms", parseTimeout: connectTimeout,
	}
)

// formatOf returns the format of a request, nil for those of Options.Next.
func formatOf(r *http.Request) *format {
	types := r.Header["Content-Type"]
	if r.Method != http.MethodPost || len(types) != 1 {
		return nil
	}
	switch types[0] {
	case "application/grpc", "application/grpc+proto":
		if r.ProtoMajor < 2 {
			return nil // without trailers
		}
		return grpc
	case "application/proto":
		return connectProto
	case "application/json":
		return connectJSON
	}
	return nil
}

// accept returns the call of a request, without a method if the request is for Options.Next.
func (o *Options) accept(r *http.Request) (c call) {
	method, format := o.Methods[r.URL.Path], formatOf(r)
	if method == nil && format == grpc {
		method = o.Streams[r.URL.Path]
	}
	if method == nil || format == nil || len(r.Header[format.encoding]) > 0 {
		return call{}
	}
	if version := r.Header["Connect-Protocol-Version"]; len(version) > 0 && version[0] != "1" {
		return call{}
	}
	c = call{opts: o, method: method, format: format, gzip: acceptsGzip(r.Header[format.acceptEncoding])}
	var ok bool
	if c.timeout, c.hasTimeout, ok = timeoutOf(r.Header, format.timeout, format.parseTimeout); !ok {
		return call{}
	}
	if o.Authorize(r.Context(), method.spec.Procedure) != nil {
		return call{}
	}
	return c
}

// serve serves the call. It returns false if the request is for Options.Next.
func (c *call) serve(w http.ResponseWriter, r *http.Request) bool {
	message := c.receive(r)
	if message == nil {
		return false
	}
	ctx, cancel := c.context(r.Context())
	defer cancel()
	c.setHeader(w.Header())
	response, err := c.method.Call(ctx, r, c.format.protocol, message)
	if err == nil {
		err = c.send(w.Header(), r, response)
	}
	if err != nil {
		httperror.WriteRPC(w, r, err)
	}
	return true
}

// receive reads the message of the request. It returns nil if the request is for Options.Next.
func (c *call) receive(r *http.Request) proto.Message {
	message := c.method.newRequest()
	if !codec.RequestOf(r.Context()).ReceiveOnly(message, c.method.input, c.opts.MaxMessageBytes(c.method.spec.Procedure)) {
		return nil
	}
	return message
}

// context returns the context of the call, with the timeout of the client.
func (c *call) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if !c.hasTimeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// setHeader sets the header of every response.
func (c *call) setHeader(header http.Header) {
	header[c.format.acceptEncoding] = gzipOnly
	if c.gzip && c.format.frames {
		header[c.format.encoding] = gzipOnly // of those messages that are compressed
	}
}

// Values of headers, not modified.
var (
	gzipOnly = []string{"gzip"}
	statusOK = []string{"0"}
)

// send writes a response.
func (c *call) send(header http.Header, r *http.Request, response proto.Message) error {
	body, err := c.encode(response)
	if err != nil {
		return connect.NewError(connect.CodeInternal, errors.New("marshal message: "+err.Error()))
	}
	header["Content-Type"] = r.Header["Content-Type"]
	if c.gzip && len(body)-c.prefixBytes() >= codec.CompressMinBytes {
		body = compress(c.opts.Compressors, body, c.prefixBytes())
		header[c.format.encoding] = gzipOnly
	}
	if c.format.frames {
		binary.BigEndian.PutUint32(body[1:], uint32(len(body)-codec.PrefixBytes)) // bounded by the size of a page
		header[http.TrailerPrefix+"Grpc-Status"] = statusOK
	}
	return codec.RequestOf(r.Context()).Respond(body)
}

func (c *call) prefixBytes() int {
	if c.format.frames {
		return codec.PrefixBytes
	}
	return 0
}

// encode returns the encoded message, behind an empty prefix if the format has one.
func (c *call) encode(response proto.Message) ([]byte, error) {
	if c.format.json {
		return codec.MarshalJSON(response)
	}
	body := make([]byte, c.prefixBytes(), c.prefixBytes()+proto.Size(response))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(body, response)
}

// compress returns the compressed message, behind its prefix.
func compress(compressors *codec.Compressors, body []byte, prefix int) []byte {
	packed := compressors.Append(make([]byte, prefix, len(body)/2), body[prefix:])
	if prefix > 0 {
		packed[0] = codec.CompressedFlag
	}
	return packed
}

// acceptsGzip reports whether a list of encodings has gzip.
func acceptsGzip(lists []string) bool {
	if len(lists) == 0 || lists[0] == "" {
		return false
	}
	for name := range strings.FieldsFuncSeq(lists[0], func(r rune) bool { return r == ',' || r == ' ' }) {
		if name == "gzip" {
			return true
		}
	}
	return false
}
