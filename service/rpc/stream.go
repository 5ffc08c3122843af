package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/httperror"
)

// A StreamService has the server streams of user.v1.UserService that this package serves.
type StreamService interface {
	ServeUserActivities(context.Context, *userv1.StreamUserActivitiesRequest, connect.StreamingHandlerConn) error
}

// UserStreams returns server streams of user.v1.UserService. The first interceptor is the outermost.
func UserStreams(s StreamService, interceptors ...connect.Interceptor) Methods {
	m := newStream("StreamUserActivities", s.ServeUserActivities)
	for _, interceptor := range slices.Backward(interceptors) {
		m.serve = interceptor.WrapStreamingHandler(m.serve)
	}
	return Methods{m.spec.Procedure: m}
}

// serveStream serves a server stream of gRPC. It returns false if the request is for Options.Next.
func (c *call) serveStream(w http.ResponseWriter, r *http.Request) bool {
	s := c.openStream(w, r)
	if s == nil {
		return false
	}
	ctx, cancel := c.context(r.Context())
	defer cancel()
	s.end(c.method.serve(ctx, s))
	return true
}

// openStream reads the request of a stream. It returns nil if the request is for Options.Next.
//
//go:noinline // for the stack of a waiting stream
func (c *call) openStream(w http.ResponseWriter, r *http.Request) *stream {
	message := c.receive(r)
	if message == nil {
		return nil
	}
	codec.RequestOf(r.Context()).StartStream()
	r.Body = http.NoBody // it was read: a stream does not keep its buffers
	c.setHeader(w.Header())
	w.Header()["Content-Type"] = r.Header["Content-Type"]
	return &stream{method: c.method, compressors: c.opts.Compressors, w: w, http: r, request: message, gzip: c.gzip}
}

// stream is the connect.StreamingHandlerConn of a server stream of gRPC.
type stream struct {
	method      *Method
	compressors *codec.Compressors
	w           http.ResponseWriter
	http        *http.Request
	request     proto.Message // nil: received
	trailer     http.Header   // nil: none
	gzip        bool
	started     bool // the header was sent
}

// Spec returns the RPC.
func (s *stream) Spec() connect.Spec { return s.method.spec }

// Peer returns the client.
func (s *stream) Peer() connect.Peer {
	return connect.Peer{Addr: s.http.RemoteAddr, Protocol: grpc.protocol}
}

// RequestHeader returns the header of the HTTP request.
func (s *stream) RequestHeader() http.Header { return s.http.Header }

// ResponseHeader returns the header of the HTTP response.
func (s *stream) ResponseHeader() http.Header { return s.w.Header() }

// ResponseTrailer returns further trailers.
func (s *stream) ResponseTrailer() http.Header {
	if s.trailer == nil {
		s.trailer = make(http.Header)
	}
	return s.trailer
}

// Receive returns the request, then io.EOF.
func (s *stream) Receive(message any) error {
	to, ok := message.(proto.Message)
	if !ok || s.request == nil {
		return io.EOF
	}
	proto.Merge(to, s.request)
	s.request = nil
	return nil
}

// Send sends a message, or only the header if it is nil.
func (s *stream) Send(message any) error {
	s.started = true
	var err error
	if message != nil {
		err = s.write(message)
	}
	if flusher, ok := s.w.(http.Flusher); ok {
		flusher.Flush()
	}
	return err
}

// frames are buffers of encoded messages.
var frames = sync.Pool{New: func() any { return new([]byte) }}

// maxFrame is the size of the largest buffer in frames.
const maxFrame = 4 << 10

func (s *stream) write(message any) error {
	buffer, _ := frames.Get().(*[]byte)
	frame, err := s.encode((*buffer)[:0], message)
	if err == nil {
		if _, err = s.w.Write(frame); err != nil {
			err = s.writeError(err)
		}
	}
	if cap(frame) <= maxFrame {
		*buffer = frame
	}
	frames.Put(buffer)
	return err
}

// encode appends the message to b, behind a prefix.
func (s *stream) encode(b []byte, message any) ([]byte, error) {
	b, err := codec.AppendProto(append(b, make([]byte, codec.PrefixBytes)...), message)
	if err != nil {
		return b, connect.NewError(connect.CodeInternal, fmt.Errorf("marshal message: %w", err))
	}
	if s.gzip && len(b)-codec.PrefixBytes >= codec.CompressMinBytes {
		b = compress(s.compressors, b, codec.PrefixBytes)
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-codec.PrefixBytes)) //nolint:gosec,nolintlint // bounded by the size of a page
	return b, nil
}

// writeError returns the error of a write with the code that connect gives it.
func (s *stream) writeError(err error) error {
	code := connect.CodeUnknown
	if failure := (*connect.Error)(nil); errors.As(err, &failure) {
		return err
	}
	switch ended := s.http.Context().Err(); {
	case errors.Is(err, context.Canceled), errors.Is(ended, context.Canceled):
		code = connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, fmt.Errorf("write message: %w", err))
}

// end sends the status.
//
//go:noinline // for the stack of a waiting stream
func (s *stream) end(err error) {
	switch header := s.w.Header(); {
	case err != nil && !s.started:
		httperror.WriteRPC(s.w, s.http, err)
	case err != nil:
		httperror.SetTrailers(header, err)
	default:
		header[http.TrailerPrefix+"Grpc-Status"] = statusOK
	}
	for name, values := range s.trailer {
		s.w.Header()[http.TrailerPrefix+name] = values
	}
}
