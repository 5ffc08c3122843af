package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/reqinfo"
)

// An invocation is a call of a stream of the Connect handler. Interceptor passes its messages as they are, so
// they are neither encoded nor decoded.
type invocation struct {
	request protoreflect.Message
	send    func(proto.Message) error
	header  http.Header // of the response

	// Results.
	err      error
	returned bool // the interceptors have returned; err is their error
}

// invoke calls a stream on the goroutine of the caller. An error is an error of the RPC.
func (h *handler) invoke(r *http.Request, rt *route, in *invocation) error {
	out := r.WithContext(reqinfo.With(r.Context(), in))
	out.Method, out.URL, out.RequestURI = http.MethodPost, &url.URL{Path: rt.procedure}, rt.procedure
	out.Header = make(http.Header, len(r.Header)+3)
	forward(out.Header, r.Header)
	out.Header["Content-Type"] = []string{typeConnectStream}
	out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, 0, nil
	w := &discardWriter{header: in.header}
	h.opts.Handler.ServeHTTP(w, out)
	if !in.returned {
		return fmt.Errorf("%s was not called: HTTP status %d", rt.procedure, w.status)
	}
	return in.err
}

// discardWriter is the http.ResponseWriter of the Connect handler. It discards the body, because
// Interceptor has taken the messages and the error.
type discardWriter struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (w *discardWriter) Header() http.Header { return w.header }

// WriteHeader records the status for errors.
func (w *discardWriter) WriteHeader(status int) { w.status = status }

// Write discards data.
func (w *discardWriter) Write(data []byte) (int, error) { return len(data), nil }

// Flush does nothing. Connect requires it for streams.
func (w *discardWriter) Flush() {}

// Interceptor passes the messages of REST streams between this package and the handlers. It must be
// the outermost interceptor of Options.Handler. Other calls pass unchanged.
type Interceptor struct{}

// WrapUnary returns next unchanged.
func (Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingClient returns next unchanged.
func (Interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler passes the messages and the error.
func (Interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		in := reqinfo.From[*invocation](ctx)
		if in == nil {
			return next(ctx, conn)
		}
		in.err = next(ctx, &invocationConn{StreamingHandlerConn: conn, invocation: in})
		in.returned = true
		return nil
	}
}

// receive sets an empty message to the request, without a copy of its fields.
func (in *invocation) receive(message any) error {
	m, ok := message.(proto.Message)
	if !ok || m.ProtoReflect().Descriptor() != in.request.Descriptor() {
		return fmt.Errorf("request of type %T, want %s", message, in.request.Descriptor().FullName())
	}
	to := m.ProtoReflect()
	in.request.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		to.Set(field, value)
		return true
	})
	return nil
}

// invocationConn is the conn of a server stream.
type invocationConn struct {
	connect.StreamingHandlerConn

	invocation *invocation
	received   bool
}

// Receive returns the request, then io.EOF.
func (c *invocationConn) Receive(message any) error {
	if c.received {
		return io.EOF
	}
	c.received = true
	return c.invocation.receive(message)
}

// Send sends a message; nil has no effect.
func (c *invocationConn) Send(message any) error {
	if message == nil {
		return nil
	}
	m, ok := message.(proto.Message)
	if !ok {
		return errors.New("message is not a proto message")
	}
	return c.invocation.send(m)
}

// forward copies the end-to-end headers.
func forward(to, from http.Header) {
	for name, values := range from {
		if !isOwn(name) {
			to[name] = values
		}
	}
}

// isOwn reports whether a header belongs to the exchange with the client, and is not forwarded.
func isOwn(name string) bool {
	switch name {
	case "Accept", "Cache-Control", "Connection", "Expect", "Keep-Alive", "Last-Event-Id", "Pragma", "Range", "Te",
		"Trailer", "Transfer-Encoding", "Upgrade", "X-Server-Timeout":
		return true
	}
	prefix, _, found := strings.Cut(name, "-")
	switch prefix {
	case "Accept", "Connect", "Content", "Grpc", "If", "Proxy":
		return found
	}
	return false
}
