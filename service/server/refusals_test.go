package server_test

import (
	"context"
	"io"
	"log/slog"
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

// withHeader sets a header on every request.
type withHeader struct {
	inner http.RoundTripper
	pairs []string
}

func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for i := 0; i < len(h.pairs); i += 2 {
		r.Header.Set(h.pairs[i], h.pairs[i+1])
	}
	return h.inner.RoundTrip(r)
}

// Requests with a host or an origin that is not allowed are rejected in their protocol, and the log
// names the flag that allows it.
func TestRefusalsInClientProtocol(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		base   string
		header []string
		reason user.Reason
		flag   string
	}{
		"host":   {"http://upstream_name", nil, user.HostNotAllowed, "--allow-host"},
		"origin": {"http://userd.test", []string{"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"}, user.OriginNotAllowed, "--cors-origin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			s := servertest.Start(t, servertest.Parallel(), servertest.Log(slog.NewTextHandler(&log, nil)))
			for _, p := range servertest.Protocols() {
				transport := *s.HTTP(p.HTTP2)
				transport.Transport = withHeader{transport.Transport, test.header}
				client := userv1connect.NewUserServiceClient(&transport, test.base, p.Options...)
				for kind, call := range callsOf(client) {
					t.Run(p.Name+", "+kind, func(t *testing.T) {
						err := call(t.Context())
						wantError(t, err, connect.CodePermissionDenied, test.reason)
						if !strings.Contains(err.Error(), test.flag) {
							t.Errorf("got %v, want %s in it", err, test.flag)
						}
					})
				}
			}
			if status, body := readREST(t, s, test.base, test.header); status != http.StatusForbidden ||
				!strings.Contains(body, string(test.reason)) || !strings.Contains(body, test.flag) {
				t.Errorf("REST: got %d %s", status, body)
			}
			log.await(t, test.flag)
			s.Stop()
			if n := strings.Count(log.String(), `msg="request refused"`); n > 10 {
				t.Errorf("got %d lines, want one a second", n)
			}
		})
	}
}

func readREST(t *testing.T, s *servertest.Server, base string, header []string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/users", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	got, err := withHeader{s.HTTP(false).Transport, header}.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, string(body)
}

// callsOf are calls without a body, with a body, and of a stream.
func callsOf(client userv1connect.UserServiceClient) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"read": func(ctx context.Context) error {
			_, err := client.ListUsers(ctx, &userv1.ListUsersRequest{})
			return err
		},
		"write": func(ctx context.Context) error {
			_, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.org"})
			return err
		},
		"stream": func(ctx context.Context) error {
			stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
			if err != nil {
				return err
			}
			for stream.Receive() {
			}
			return stream.Err()
		},
	}
}

// A long host is truncated in the error.
func TestRejectedHostIsTruncated(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	client := userv1connect.NewUserServiceClient(s.HTTP(true), "http://"+strings.Repeat("a", 4000)+".example", connect.WithGRPC())
	_, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{})
	info := wantError(t, err, connect.CodePermissionDenied, user.HostNotAllowed)
	if n := len(err.Error()) + len(info.GetMetadata()["host"]); n > 600 {
		t.Errorf("%d bytes of error, want fewer than 600", n)
	}
}

func TestPreflights(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) {
		c.CORSOrigin = []string{"https://app.example.com", "https://*.wild.example"}
	}))
	preflight := func(origin string, more ...string) (int, http.Header) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://userd.test/api/v1/users", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for i, pair := 0, append([]string{"Origin", origin, "Access-Control-Request-Method", "POST"}, more...); i < len(pair); i += 2 {
			request.Header.Set(pair[i], pair[i+1])
		}
		got, err := s.HTTP(false).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		return got.StatusCode, got.Header
	}
	for _, origin := range []string{"https://app.example.com", "https://one.wild.example"} {
		status, header := preflight(origin, "Access-Control-Request-Headers", "x-of-the-page")
		if status != http.StatusNoContent || header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("%s: got %d %v", origin, status, header)
		}
		allowed := strings.ToLower(header.Get("Access-Control-Allow-Headers"))
		for _, header := range []string{
			"authorization", "baggage", "content-type", "idempotency-key", "if-match", "if-none-match", "last-event-id", "traceparent",
			"tracestate", "userd-min-position", "connect-protocol-version", "connect-timeout-ms", "grpc-timeout", "x-grpc-web", "x-user-agent", "x-of-the-page",
		} {
			if !strings.Contains(allowed, header) {
				t.Errorf("%s: a page may not send %s: %s", origin, header, allowed)
			}
		}
	}
	for _, origin := range []string{"https://elsewhere.example", "https://two.one.wild.example", "https://wild.example", "null"} {
		if status, header := preflight(origin); status != http.StatusForbidden || header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %d %v, want 403", origin, status, header)
		}
	}
}

// Pages of an allowed origin can read the exposed headers, also of errors.
func TestExposedHeaders(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel(), servertest.Config(func(c *server.Config) { c.CORSOrigin = []string{"https://app.example.com"} }))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://userd.test/api/v1/users", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "https://app.example.com")
	got, err := g.HTTP(false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Body.Close()
	exposed := got.Header.Get("Access-Control-Expose-Headers")
	for _, header := range []string{"WWW-Authenticate", "Retry-After", "ETag", "Userd-Position", "Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"} {
		if !strings.Contains(exposed, header) {
			t.Errorf("a page may not read %s: %s", header, exposed)
		}
	}
	if got.StatusCode != http.StatusUnauthorized || got.Header.Get("Www-Authenticate") == "" {
		t.Errorf("got %d %v, want 401 with a challenge", got.StatusCode, got.Header)
	}
}
