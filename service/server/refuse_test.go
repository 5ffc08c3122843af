package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// A gRPC call that reaches no handler gets a Trailers-Only response, because proxies drop the trailers
// of a response without content.
func TestRefusalsAreTrailersOnly(t *testing.T) {
	t.Parallel()
	const get = "/user.v1.UserService/GetUser"
	slow := servertest.Config(func(c *server.Config) { c.MaxRequestsPerSecond, c.MaxRequestBurst = 1, 1 })
	open := func(opts ...servertest.Option) *servertest.Server {
		return servertest.Start(t, append(opts, servertest.Parallel())...)
	}
	guarded := startGuarded(t, servertest.Parallel())
	for name, c := range map[string]struct {
		server            *servertest.Server
		path, host, token string
		calls             int // the last one is checked
		status, reason    string
	}{
		"unknown service": {server: open(), path: "/nobody.v1.Service/Get", status: "12"},
		"unknown method":  {server: open(), path: "/user.v1.UserService/Nothing", status: "12"},
		"empty segment":   {server: open(), path: "//user.v1.UserService/GetUser", status: "12"},
		"dot segment":     {server: open(), path: "/user.v1.UserService/./GetUser", status: "12"},
		"no service":      {server: open(), path: "/", status: "12"},
		"foreign host":    {server: open(), path: get, host: "users.example.net", status: "7", reason: "HOST_NOT_ALLOWED"},
		"rate limit":      {server: open(slow), path: get, calls: 2, status: "8", reason: "RATE_LIMITED"},
		"no token":        {server: guarded.Server, path: get, status: "16", reason: "CREDENTIALS_MISSING"},
		"bad token":       {server: guarded.Server, path: get, token: "nonsense", status: "16", reason: "CREDENTIALS_INVALID"},
		"unknown method of a known caller": {
			server: guarded.Server, path: "/user.v1.UserService/Nothing", token: guarded.token(t, "ann", time.Hour, auth.UsersRead), status: "12",
		},
	} {
		for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web+proto"} {
			t.Run(name+" over "+kind, func(t *testing.T) {
				peer := dialHTTP2(t, c.server)
				peer.token, peer.host, peer.contentType = c.token, c.host, kind
				id := uint32(1)
				call := func() *http2.MetaHeadersFrame {
					peer.call(t, id, c.path, &userv1.GetUserRequest{UserId: 1})
					frame := peer.await(t, func(f http2.Frame) bool {
						headers, ok := f.(*http2.MetaHeadersFrame)
						return ok && headers.StreamID == id
					})
					id += 2
					headers, _ := frame.(*http2.MetaHeadersFrame)
					return headers
				}
				for range c.calls - 1 {
					call()
				}
				headers := call()
				got := make(map[string]string)
				for _, field := range headers.Fields {
					got[field.Name] = field.Value
				}
				if !headers.StreamEnded() || got[":status"] != "200" || got["grpc-status"] != c.status || got["content-type"] != kind {
					t.Errorf("ended = %t, fields = %v; want the end, :status 200, grpc-status %s, content-type %s",
						headers.StreamEnded(), got, c.status, kind)
				}
				if _, ok := got["content-length"]; ok {
					t.Errorf("content-length = %q, want none", got["content-length"])
				}
				if details := got["grpc-status-details-bin"]; (c.reason == "") != (details == "") {
					t.Errorf("grpc-status-details-bin = %q, want some: %t", details, c.reason != "")
				}
			})
		}
	}
}

// Responses of handlers have no Content-Length, because proxies drop the trailers of a response with
// length 0.
func TestResponsesWithTrailersHaveNoLength(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for path, message := range map[string]proto.Message{
		"/user.v1.UserService/GetUser":              &userv1.GetUserRequest{UserId: 1},
		"/user.v1.UserService/ListUsers":            &userv1.ListUsersRequest{},
		"/user.v1.UserService/StreamUserActivities": &userv1.StreamUserActivitiesRequest{UserId: 1},
		"/grpc.health.v1.Health/Check":              &grpc_health_v1.HealthCheckRequest{Service: "unknown"},
	} {
		for _, kind := range []string{"application/grpc", "application/grpc+proto"} {
			peer := dialHTTP2(t, s)
			peer.contentType = kind
			peer.call(t, 1, path, message)
			peer.await(t, func(f http2.Frame) bool {
				headers, ok := f.(*http2.MetaHeadersFrame)
				if !ok {
					return false
				}
				for _, field := range headers.Fields {
					if field.Name == "content-length" {
						t.Errorf("%s over %s: content-length = %q, want none", path, kind, field.Value)
					}
				}
				return headers.StreamEnded()
			})
		}
	}
}

// For an unknown procedure RPC clients get UNIMPLEMENTED, plain HTTP clients 404.
func TestUnknownProcedures(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for _, c := range []struct {
		kind   string
		status int
		body   string
	}{
		{"application/json", http.StatusNotFound, `"code":"unimplemented"`},
		{"application/proto", http.StatusNotFound, `"code":"unimplemented"`},
		{"application/json; charset=utf-8", http.StatusNotFound, `"code":"unimplemented"`},
		{"application/connect+json", http.StatusOK, `"code":"unimplemented"`},
		{"text/plain", http.StatusNotFound, "404 page not found"},
		{"", http.StatusNotFound, "404 page not found"},
	} {
		for _, path := range []string{"/user.v1.UserService/Nothing", "/nobody.v1.Service/Get", "/nowhere"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", c.kind)
			response, err := s.HTTP(false).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != c.status || !strings.Contains(string(body), c.body) {
				t.Errorf("POST %s as %q = %d %q, %v; want %d with %s", path, c.kind, response.StatusCode, body, err, c.status, c.body)
			}
		}
	}
}
