package server_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/auth/devtoken"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// guarded is a server with token authentication.
type guarded struct {
	*servertest.Server

	keys string // folder
}

func startGuarded(t testing.TB, opts ...servertest.Option) guarded {
	t.Helper()
	g := guarded{keys: t.TempDir()}
	_, jwks, err := devtoken.New(g.keys, "first", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	g.Server = servertest.Start(t, append(opts, servertest.Config(func(c *server.Config) {
		c.JWTJWKS, c.JWTIssuer, c.JWTAudience = jwks, devtoken.Issuer, devtoken.Audience
	}))...)
	return g
}

func (g guarded) token(t testing.TB, subject string, ttl time.Duration, permissions ...auth.Permission) string {
	t.Helper()
	names := make([]string, len(permissions))
	for i, p := range permissions {
		names[i] = string(p)
	}
	token, _, err := devtoken.New(g.keys, subject, names, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// as returns an HTTP client that sends the token; empty: none.
func (g guarded) as(http2 bool, token string) *http.Client {
	client := *g.HTTP(http2)
	client.Transport = bearer{client.Transport, token}
	return &client
}

func (g guarded) grpc(token string) userv1connect.UserServiceClient {
	return userv1connect.NewUserServiceClient(g.as(true, token), "http://userd.test", connect.WithGRPC())
}

type bearer struct {
	http.RoundTripper

	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.RoundTripper.RoundTrip(r)
}

// needed lists the permission for an empty request to each procedure, independently of the table of the
// policy.
var needed = map[protoreflect.Name][]auth.Permission{
	"GetUser":              {auth.UsersRead},
	"BatchGetUsers":        {auth.UsersRead},
	"ListUsers":            {auth.UsersRead},
	"CreateUser":           {auth.UsersWrite},
	"CreateUsers":          {auth.UsersWrite},
	"BatchCreateUsers":     {auth.UsersWrite},
	"UpdateUser":           {auth.UsersWrite},
	"UpdateUsers":          {auth.UsersWrite},
	"BatchUpdateUsers":     {auth.UsersWrite},
	"DeleteUser":           {auth.UsersDelete},
	"UndeleteUser":         {auth.UsersDelete},
	"PurgeUser":            {auth.UsersPurge},
	"StreamUserActivities": {auth.ActivitiesRead, auth.ActivitiesReadAll}, // user 0 is everybody
	"ListUserActivities":   {auth.ActivitiesRead, auth.ActivitiesReadAll},
	"RecordUserActivity":   {auth.ActivitiesRecord},
	"SyncUserStatus":       {auth.StatusRead},
	"UpdateUserStatus":     {auth.StatusWrite},
	"WatchUserStatus":      {auth.StatusRead},
	"WatchUsers":           {auth.UsersRead},
}

func methods() []protoreflect.MethodDescriptor {
	list := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	all := make([]protoreflect.MethodDescriptor, list.Len())
	for i := range all {
		all[i] = list.Get(i)
	}
	return all
}

// Every procedure rejects anonymous callers, and callers with all permissions but the required one.
func TestEveryProcedureIsAuthorized(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	for _, method := range methods() {
		needs := needed[method.Name()]
		if len(needs) == 0 {
			t.Errorf("%s: not in needed", method.Name())
		}
		for _, p := range servertest.Protocols() {
			if method.IsStreamingClient() && method.IsStreamingServer() && !p.HTTP2 {
				continue
			}
			err := callEmpty(t, g.as(p.HTTP2, ""), method, p.Options)
			wantError(t, err, connect.CodeUnauthenticated, user.CredentialsMissing)
			err = callEmpty(t, g.as(p.HTTP2, "eyJhbGciOiJub25lIn0.e30."), method, p.Options)
			wantError(t, err, connect.CodeUnauthenticated, user.CredentialsInvalid)
			for _, missing := range needs {
				others := slices.DeleteFunc(auth.AllPermissions().List(), func(p auth.Permission) bool { return p == missing })
				err := callEmpty(t, g.as(p.HTTP2, g.token(t, "mallory", time.Hour, others...)), method, p.Options)
				if got := wantError(t, err, connect.CodePermissionDenied, user.PermissionMissing).GetMetadata()["permission"]; got != string(missing) {
					t.Errorf("%s over %s: got %q, want %s", method.Name(), p.Name, got, missing)
				}
			}
			// A caller with only the required permission reaches the validation. Endless streams have
			// their own tests.
			if !method.IsStreamingServer() {
				err := callEmpty(t, g.as(p.HTTP2, g.token(t, "alice", time.Hour, needs...)), method, p.Options)
				if code := connect.CodeOf(err); err != nil && code != connect.CodeInvalidArgument {
					t.Errorf("%s over %s: got %v", method.Name(), p.Name, err)
				}
			}
		}
	}
	head, err := g.Store().Head(t.Context())
	if err != nil || head.Position != 0 {
		t.Errorf("store head = %+v, %v, want it unchanged", head, err)
	}
}

// callEmpty calls a procedure with an empty message.
func callEmpty(t *testing.T, client *http.Client, method protoreflect.MethodDescriptor, options []connect.ClientOption) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	path := "/user.v1.UserService/" + string(method.Name())
	c := connect.NewClient[emptypb.Empty, emptypb.Empty](client, "http://userd.test"+path, options...)
	switch in, out := method.IsStreamingClient(), method.IsStreamingServer(); {
	case in && out:
		stream := c.CallBidiStream(ctx)
		defer func() { _ = stream.CloseResponse() }()
		_ = stream.Send(new(emptypb.Empty)) // Receive says what went wrong
		_ = stream.CloseRequest()
		_, err := stream.Receive()
		return err
	case in:
		stream := c.CallClientStream(ctx)
		_ = stream.Send(new(emptypb.Empty))
		_, err := stream.CloseAndReceive()
		return err
	case out:
		stream, err := c.CallServerStream(ctx, connect.NewRequest(new(emptypb.Empty)))
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		stream.Receive()
		return stream.Err()
	}
	_, err := c.CallUnary(ctx, connect.NewRequest(new(emptypb.Empty)))
	return err
}

// resource is a REST route.
type resource struct {
	method, path, accept string
	needs                auth.Permission
}

// streamed are the routes of server streams, which have no annotation.
var streamed = map[protoreflect.Name][]resource{
	"StreamUserActivities": {
		{"GET", "/api/v1/users/1/activities", "text/event-stream", auth.ActivitiesRead},
		{"GET", "/api/v1/users/1/activities", "application/x-ndjson", auth.ActivitiesRead},
		{"GET", "/api/v1/users/0/activities", "text/event-stream", auth.ActivitiesReadAll},
	},
	"WatchUserStatus": {
		{"GET", "/api/v1/users:watchStatus?userIds=1", "text/event-stream", auth.StatusRead},
		{"GET", "/api/v1/users:watchStatus?all=true", "text/event-stream", auth.UsersWatchAll},
	},
	"WatchUsers": {
		{"GET", "/api/v1/users:watch", "text/event-stream", auth.UsersRead},
		{"GET", "/api/v1/users:watch?showDeleted=true", "text/event-stream", auth.UsersReadDeleted},
	},
}

// resources returns the annotated routes and the streamed ones.
func resources(t *testing.T) []resource {
	t.Helper()
	var all []resource
	for _, method := range methods() {
		if method.IsStreamingServer() && !method.IsStreamingClient() {
			if len(streamed[method.Name()]) == 0 {
				t.Errorf("%s: not in streamed", method.Name())
			}
			all = append(all, streamed[method.Name()]...)
		}
		rule, ok := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule == nil {
			continue
		}
		if len(needed[method.Name()]) == 0 {
			t.Errorf("%s: not in needed", method.Name())
			continue
		}
		route := resource{needs: needed[method.Name()][0]}
		for verb, path := range map[string]string{
			"GET": rule.GetGet(), "POST": rule.GetPost(), "PUT": rule.GetPut(), "PATCH": rule.GetPatch(), "DELETE": rule.GetDelete(),
		} {
			if path != "" {
				route.method, route.path = verb, strings.ReplaceAll(path, "{user_id}", "1")
			}
		}
		all = append(all, route)
	}
	if len(all) < 14 {
		t.Fatalf("only %d routes", len(all))
	}
	return all
}

func TestEveryRouteIsAuthorized(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	for _, route := range resources(t) {
		others := slices.DeleteFunc(auth.AllPermissions().List(), func(p auth.Permission) bool { return p == route.needs })
		for token, want := range map[string]string{
			"":                                    "CREDENTIALS_MISSING",
			"x":                                   "CREDENTIALS_INVALID",
			g.token(t, "m", time.Hour, others...): "PERMISSION_MISSING",
		} {
			status := http.StatusUnauthorized
			if want == "PERMISSION_MISSING" {
				status = http.StatusForbidden
			}
			response, body := g.rest(t, token, route)
			if response.StatusCode != status || !strings.Contains(body, want) {
				t.Errorf("%s %s %s: got %d %s, want %s", route.method, route.path, route.accept, response.StatusCode, body, want)
			}
			if challenge := response.Header.Get("Www-Authenticate"); (status == http.StatusUnauthorized) != strings.HasPrefix(challenge, "Bearer") {
				t.Errorf("%s %s: got challenge %q", route.method, route.path, challenge)
			}
		}
	}
}

// reply is the head of a response.
type reply struct {
	StatusCode int
	Header     http.Header
}

func (g guarded) rest(t *testing.T, token string, route resource) (reply, string) {
	t.Helper()
	var body io.Reader = http.NoBody
	if route.method != http.MethodGet && route.method != http.MethodDelete {
		body = strings.NewReader("{}")
	}
	request, err := http.NewRequestWithContext(t.Context(), route.method, "http://userd.test"+route.path, body)
	if err != nil {
		t.Fatal(err)
	}
	if route.accept != "" {
		request.Header.Set("Accept", route.accept)
	}
	if body != http.NoBody {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := g.as(false, token).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header}, string(text)
}

func TestOpenPaths(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	for path, want := range map[string]int{
		"/": 200, "/openapi.yaml": 200, "/nothing": 401, "/api/v1/users": 401, "/api/v1/nothing": 401,
		"/grpc.health.v1.Health/Check": 405, // known, and not by GET
	} {
		response, body := g.rest(t, "", resource{method: "GET", path: path})
		if response.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", path, response.StatusCode, body, want)
		}
	}
	_, body := g.rest(t, "", resource{method: "GET", path: "/"})
	if !strings.Contains(body, "Authorization: Bearer") {
		t.Errorf("page does not mention authentication:\n%s", body)
	}
}
