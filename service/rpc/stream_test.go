package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/rpc"
)

// streamFunc is the handler of a stream.
type streamFunc func(context.Context, connect.StreamingHandlerConn) error

func (f streamFunc) ServeUserActivities(ctx context.Context, _ *userv1.StreamUserActivitiesRequest, conn connect.StreamingHandlerConn) error {
	return f(ctx, conn)
}

// streamOfConnect is a handler behind connect.
type streamOfConnect struct {
	userv1connect.UnimplementedUserServiceHandler

	f streamFunc
}

func (s streamOfConnect) StreamUserActivities(
	ctx context.Context, _ *userv1.StreamUserActivitiesRequest, stream *connect.ServerStream[userv1.UserActivity],
) error {
	return s.f(ctx, stream.Conn())
}

// writer is a response whose writes fail, if failure is not nil. It records what was written when it was flushed.
type writer struct {
	*httptest.ResponseRecorder

	failure error
	flushed []int
}

func (w *writer) Write(p []byte) (int, error) {
	if w.failure != nil {
		return 0, w.failure
	}
	return w.ResponseRecorder.Write(p)
}

func (w *writer) Flush() { w.flushed = append(w.flushed, w.Body.Len()) }

// serveStream serves a stream over gRPC by this package, or by connect.
func serveStream(ctx context.Context, t *testing.T, byConnect bool, w http.ResponseWriter, f streamFunc) {
	t.Helper()
	messages := codec.NewMessages(codec.MessageOptions{
		DecodedSize: func(_ protoreflect.MessageDescriptor, _ bool, data []byte) int64 { return int64(len(data)) },
		MaxDecoded:  1 << 20,
	})
	_, h := userv1connect.NewUserServiceHandler(streamOfConnect{f: f}, messages.Codecs())
	if !byConnect {
		h = rpc.NewHandler(rpc.Options{
			Streams: rpc.UserStreams(f), Compressors: codec.NewCompressors(),
			Next:            http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the stream was passed to the handler of connect") }),
			Authorize:       func(context.Context, string) error { return nil },
			MaxMessageBytes: func(string) int64 { return 1 << 10 },
		})
	}
	r := httptest.NewRequestWithContext(&requestState{Context: ctx, header: w.Header()}, http.MethodPost,
		userv1connect.UserServiceStreamUserActivitiesProcedure, bytes.NewReader(make([]byte, 5)))
	r.Header.Set("Content-Type", "application/grpc")
	r.ProtoMajor = 2
	messages.Handler(h).ServeHTTP(w, r)
}

// A failed write has the code that connect gives it.
func TestWriteErrorsOfStreams(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	failures := []error{
		io.ErrClosedPipe, context.Canceled, context.DeadlineExceeded, fmt.Errorf("write: %w", context.DeadlineExceeded),
		connect.NewError(connect.CodeUnavailable, errors.New("draining")),
	}
	for name, ctx := range map[string]context.Context{"": t.Context(), "canceled": canceled} {
		for _, failure := range failures {
			if name != "" && errors.Is(failure, context.DeadlineExceeded) {
				continue // does not occur
			}
			var codes [2]connect.Code
			for i, byConnect := range []bool{false, true} {
				called := false
				serveStream(ctx, t, byConnect, &writer{ResponseRecorder: httptest.NewRecorder(), failure: failure}, func(_ context.Context, conn connect.StreamingHandlerConn) error {
					called = true
					err := conn.Send(&userv1.UserActivity{Action: "a"})
					if err == nil || !errors.Is(err, failure) && connect.CodeOf(err) != connect.CodeOf(failure) {
						t.Errorf("%v %s: Send error = %v, want one that wraps it", failure, name, err)
					}
					codes[i] = connect.CodeOf(err)
					return err
				})
				if !called {
					t.Fatal("the stream was not served")
				}
			}
			if codes[0] != codes[1] {
				t.Errorf("%v %s: code = %v, want %v", failure, name, codes[0], codes[1])
			}
		}
	}
}

// A message is flushed when it is sent, and the header if there is none. A stream has one request.
func TestStreamSendsAtOnce(t *testing.T) {
	w := &writer{ResponseRecorder: httptest.NewRecorder()}
	serveStream(t.Context(), t, false, w, func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if err := conn.Receive(new(userv1.StreamUserActivitiesRequest)); !errors.Is(err, io.EOF) {
			t.Errorf("second Receive = %v, want io.EOF", err)
		}
		if err := conn.Send(nil); err != nil {
			return err
		}
		if len(w.flushed) != 1 || w.flushed[0] != 0 {
			t.Errorf("bytes at the flushes = %v, want 0", w.flushed)
		}
		return conn.Send(&userv1.UserActivity{Action: "abc"})
	})
	const want = 5 + 2 + 3 // prefix, key and length of the field, text
	if len(w.flushed) < 2 || w.flushed[1] != want {
		t.Errorf("bytes at the flushes = %v, want 0 and %d", w.flushed, want)
	}
	if got := w.Header().Get(http.TrailerPrefix + "Grpc-Status"); got != "0" {
		t.Errorf("grpc-status = %q, want 0", got)
	}
}

// The status is in the trailers once a message was sent, else in the header.
func TestFailureOfStreamAfterMessage(t *testing.T) {
	for sent := range 2 {
		w := httptest.NewRecorder()
		serveStream(t.Context(), t, false, w, func(_ context.Context, conn connect.StreamingHandlerConn) error {
			for range sent {
				if err := conn.Send(&userv1.UserActivity{}); err != nil {
					return err
				}
			}
			return connect.NewError(connect.CodeNotFound, io.EOF)
		})
		got := [2]string{w.Header().Get("Grpc-Status"), w.Header().Get(http.TrailerPrefix + "Grpc-Status")}
		if want := [][2]string{{"5", ""}, {"", "5"}}[sent]; got != want {
			t.Errorf("after %d messages: grpc-status in header and trailer = %q, want %q", sent, got, want)
		}
	}
}

// Messages are compressed from the same size on as with connect.
func TestStreamCompressesFromSameSize(t *testing.T) {
	own, connected, _ := handlers()
	for size := codec.CompressMinBytes - 16; size <= codec.CompressMinBytes; size++ {
		c := &call{
			path: userv1connect.UserServiceStreamUserActivitiesProcedure, method: http.MethodPost, contentType: "application/grpc", major: 2,
			header: http.Header{"Grpc-Accept-Encoding": {"gzip"}},
		}
		c.body = encoded(t, c, &userv1.StreamUserActivitiesRequest{Actions: []string{strings.Repeat("b", size)}}, false)
		c.compare(t, own, connected)
	}
}

// Buffers of messages are reused, and have nothing of those before.
func TestStreamReusesBuffers(t *testing.T) {
	w := &writer{ResponseRecorder: httptest.NewRecorder()}
	actions := []string{"a", strings.Repeat("b", 10_000), "c", strings.Repeat("d", 100), ""}
	serveStream(t.Context(), t, false, w, func(_ context.Context, conn connect.StreamingHandlerConn) error {
		for _, action := range actions {
			if err := conn.Send(&userv1.UserActivity{Action: action}); err != nil {
				return err
			}
		}
		return nil
	})
	want := httptest.NewRecorder()
	serveStream(t.Context(), t, true, want, func(_ context.Context, conn connect.StreamingHandlerConn) error {
		for _, action := range actions {
			if err := conn.Send(&userv1.UserActivity{Action: action}); err != nil {
				return err
			}
		}
		return nil
	})
	if !bytes.Equal(w.Body.Bytes(), want.Body.Bytes()) {
		t.Errorf("stream has %d bytes, want the %d of connect", w.Body.Len(), want.Body.Len())
	}
}

// A stream has the status, the header and the trailers of connect, however it ends.
func TestEndOfStreamIsThatOfConnect(t *testing.T) {
	own, connected, passed := handlers()
	for _, id := range []int64{0, missingUser, unexpectedError, invalidText} {
		for actions := range 2 {
			for _, trailer := range []bool{false, true} {
				for _, header := range []bool{false, true} {
					c := &call{
						path: userv1connect.UserServiceStreamUserActivitiesProcedure, method: http.MethodPost, contentType: "application/grpc",
						major: 2, header: http.Header{},
					}
					c.body = encoded(t, c, &userv1.StreamUserActivitiesRequest{
						UserId: id, Actions: []string{"a"}[:actions], ReplayOnly: trailer, FromHead: header,
					}, false)
					c.compare(t, own, connected)
				}
			}
		}
	}
	if *passed != 0 {
		t.Errorf("passed %d streams, want 0", *passed)
	}
}
