package server_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// retryDelay returns the retry delay of an error, 0 if none.
func retryDelay(t *testing.T, err error) time.Duration {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	for _, packed := range e.Details() {
		if message, err := packed.Value(); err == nil {
			if retry, ok := message.(*errdetails.RetryInfo); ok {
				return retry.GetRetryDelay().AsDuration()
			}
		}
	}
	return 0
}

func TestRequestRateOfCaller(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) {
		c.MaxRequestsPerSecond, c.MaxRequestBurst = 1, 3
	}))
	client := s.GRPC()
	var last error
	for range 20 { // enough even on a slow machine
		if _, last = client.ListUsers(t.Context(), &userv1.ListUsersRequest{}); last != nil {
			break
		}
	}
	wantError(t, last, connect.CodeResourceExhausted, user.RateLimited)
	// All protocols share the token bucket of the caller.
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		var err error
		for range 20 {
			if _, err = client.ListUsers(t.Context(), &userv1.ListUsersRequest{}); err != nil {
				break
			}
		}
		wantError(t, err, connect.CodeResourceExhausted, user.RateLimited)
		if delay := retryDelay(t, err); delay <= 0 || delay > time.Second {
			t.Errorf("got a delay of %v", delay)
		}
	})
	for range 20 {
		status, header, body := ask(t, s, http.MethodGet, "/api/v1/users", nil, "")
		if status == http.StatusOK {
			continue
		}
		if status != http.StatusTooManyRequests || header.Get("Retry-After") != "1" || !strings.Contains(body, "RATE_LIMITED") {
			t.Errorf("REST: got %d %v %s", status, header, body)
		}
		break
	}
	for range 20 { // health checks are exempt
		status, _, body := ask(t, s, http.MethodPost, "/grpc.health.v1.Health/Check", http.Header{"Content-Type": {"application/json"}}, "{}")
		if status != http.StatusOK {
			t.Errorf("health: got %d %s", status, body)
		}
	}
}

func ask(t *testing.T, s *servertest.Server, method, path string, header http.Header, body string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://userd.test"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := s.HTTP(false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(text)
}

// The stream limit of a caller covers all connections and protocols.
func TestStreamLimitOfCaller(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) { c.MaxStreamsPerCaller = 2 }))
	created, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	open := func(client userv1connect.UserServiceClient) (*connect.ServerStreamForClient[userv1.UserActivity], error) {
		stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: created.GetUser().GetUserId()})
		if err == nil && !stream.Receive() {
			err = stream.Err()
		}
		return stream, err
	}
	var held []*connect.ServerStreamForClient[userv1.UserActivity]
	for range 2 {
		stream, err := open(s.GRPC())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, stream)
	}
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		_, err := open(client)
		info := wantError(t, err, connect.CodeResourceExhausted, user.TooManyStreams)
		if info.GetMetadata()["limit"] != "2" || retryDelay(t, err) == 0 {
			t.Errorf("got %v", info)
		}
	})
	status, _, body := ask(t, s, http.MethodGet, "/api/v1/users/1/activities", http.Header{"Accept": {"text/event-stream"}}, "")
	if !strings.Contains(body, "TOO_MANY_STREAMS") {
		t.Errorf("server-sent events: got %d %s", status, body)
	}
	for _, stream := range held {
		_ = stream.Close()
	}
}

func TestStreamBytesLimit(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) { c.MaxStreamBytes = 10_000 }))
	for _, p := range servertest.Protocols() {
		p.Options = append(p.Options, connect.WithSendGzip()) // the limit applies to decompressed bytes
		t.Run(p.Name, func(t *testing.T) {
			stream, err := s.Client(p).BatchUpdateUsers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if stream.Send(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Username: strings.Repeat("a", 1000)}}) != nil {
					break // the response has the reason
				}
			}
			_, err = stream.CloseAndReceive()
			if info := wantError(t, err, connect.CodeResourceExhausted, user.TooManyItems); info.GetMetadata()["limit_bytes"] != "10000" {
				t.Errorf("got %v", info)
			}
		})
	}
}

// Cross-origin POSTs of browsers are rejected on every path, also with content types that need no
// preflight.
func TestCrossOriginPosts(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	const body = `{"username":"ada","email":"ada@example.com"}`
	for _, path := range []string{"/api/v1/users", userv1connect.UserServiceCreateUserProcedure} {
		for _, kind := range []string{"application/json", "text/plain", ""} {
			for name, header := range map[string]http.Header{
				"by fetch metadata": {"Sec-Fetch-Site": {"cross-site"}},
				"by origin":         {"Origin": {"https://evil.example.com"}},
			} {
				if kind != "" {
					header.Set("Content-Type", kind)
				}
				if status, _, text := ask(t, s, http.MethodPost, path, header, body); status != http.StatusForbidden {
					t.Errorf("%s as %q, %s: got %d %s", path, kind, name, status, text)
				}
			}
		}
	}
	if status, _, text := ask(t, s, http.MethodPost, "/api/v1/users", http.Header{"Content-Type": {"application/json"}}, body); status != http.StatusOK {
		t.Errorf("no browser: got %d %s", status, text)
	}
}

func TestMemoryLimitFlag(t *testing.T) {
	t.Parallel()
	for value, ok := range map[string]bool{"auto": true, "off": true, "512MiB": true, "1MiB": false, "much": false} {
		c, err := server.Defaults()
		if err != nil {
			t.Fatal(err)
		}
		c.MemoryLimit = value
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%s: got %v", value, err)
		}
	}
}
