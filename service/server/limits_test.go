package server_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

func TestMessageTooLarge(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	s := servertest.Start(t, servertest.Parallel(),
		servertest.Config(func(c *server.Config) { c.MaxMessageBytes = limit }))
	for _, compress := range []bool{false, true} {
		for _, p := range servertest.Protocols() {
			name := p.Name
			if compress {
				name += ", compressed"
				p.Options = append(p.Options, connect.WithSendGzip())
			}
			client := s.Client(p)
			t.Run(name, func(t *testing.T) {
				_, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{
					Username: strings.Repeat("a", 2*limit), Email: "ada@example.com",
				})
				info := wantError(t, err, connect.CodeResourceExhausted, user.MessageTooLarge)
				if info.GetMetadata()["limit"] != "65536" {
					t.Errorf("got metadata %v", info.GetMetadata())
				}
			})
			t.Run(name+", stream", func(t *testing.T) {
				wantStreamTooLarge(t, client, 2*limit)
			})
		}
	}
}

func wantStreamTooLarge(t *testing.T, client userv1connect.UserServiceClient, size int) {
	t.Helper()
	stream, err := client.BatchUpdateUsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The server may respond before it has read the whole request.
	_ = stream.Send(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Username: strings.Repeat("a", size)}})
	_, err = stream.CloseAndReceive()
	wantError(t, err, connect.CodeResourceExhausted, user.MessageTooLarge)
}

// A message that announces a size above the limit is rejected before it is read.
func TestTooLargeMessageIsNotRead(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for contentType, body := range map[string]string{
		"application/proto":      "",
		"application/grpc+proto": "\x00\x7f\xff\xff\xff",
	} {
		never, end := io.Pipe()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://userd.test/user.v1.UserService/GetUser", io.MultiReader(strings.NewReader(body), never))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", contentType)
		if body == "" {
			request.ContentLength = 1 << 40
		}
		response, err := s.HTTP(true).Do(request)
		if err != nil {
			t.Fatalf("%s: %v", contentType, err)
		}
		text, _ := io.ReadAll(response.Body)
		_ = end.Close() // the client waits for its own body
		_ = response.Body.Close()
		shown := string(text) + response.Header.Get("Grpc-Message") + response.Trailer.Get("Grpc-Message")
		if !strings.Contains(shown, "too large") {
			t.Errorf("%s: got %v %s", contentType, response, shown)
		}
	}
}

// Decompression of a small message stops at the limit.
func TestGzipBomb(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 32 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://userd.test/user.v1.UserService/GetUser", &bomb)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/proto")
	request.Header.Set("Content-Encoding", "gzip")
	response, err := s.HTTP(false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(text), "MESSAGE_TOO_LARGE") {
		t.Errorf("got %d %s", response.StatusCode, text)
	}
}

func TestSmallResponsesAreNotCompressed(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for body, want := range map[string]string{`{}`: ""} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://userd.test/user.v1.UserService/ListUsers", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept-Encoding", "gzip")
		response, err := s.HTTP(false).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.Header.Get("Content-Encoding"); got != want {
			t.Errorf("got encoding %q, want %q", got, want)
		}
	}
}

// post sends a body and returns status and body of the response.
func post(t *testing.T, s *servertest.Server, path, contentType string, body io.Reader) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://userd.test"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := s.HTTP(false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
