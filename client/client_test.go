package client_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// Each RPC works over each protocol.
func TestMethods(t *testing.T) {
	s := servertest.Start(t)
	for _, test := range []struct {
		name    string
		options []client.Option
	}{
		{"gRPC", nil},
		{"gRPC on two connections", []client.Option{client.WithConnections(2)}},
		{"gRPC-Web", []client.Option{client.WithProtocol(client.GRPCWeb)}},
		{"gRPC-Web over HTTP/1.1", []client.Option{client.WithProtocol(client.GRPCWeb), client.WithHTTP1()}},
		{"Connect", []client.Option{client.WithProtocol(client.Connect)}},
		{"Connect over HTTP/1.1", []client.Option{client.WithProtocol(client.Connect), client.WithHTTP1()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			testMethods(t, newClient(t, s, test.options...), strings.ReplaceAll(test.name, "/", " "))
		})
	}
}

func testMethods(t *testing.T, c *client.Client, name string) {
	ctx := limited(t)
	email := strings.ReplaceAll(strings.ToLower(name), " ", ".") + "@example.org"
	u, err := c.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: email, Tags: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	id := u.GetUserId()
	if got, err := c.GetUser(ctx, id, "username"); err != nil || got.GetUsername() != name || got.GetEmail() != "" {
		t.Errorf("GetUser() = %v, %v, want only the username", got, err)
	}
	users, missing, err := c.BatchGetUsers(ctx, []int64{id, 5})
	if err != nil || len(users) != 1 || !slices.Equal(missing, []int64{5}) {
		t.Errorf("BatchGetUsers() = %v, %v, %v, want one user, and 5 missing", users, missing, err)
	}
	updated, err := c.UpdateUser(ctx, &userv1.UpdateUserRequest{
		UserId: id, User: &userv1.User{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"tags"}}, Etag: u.GetEtag(),
	})
	if err != nil || len(updated.GetTags()) != 0 {
		t.Errorf("UpdateUser() = %v, %v, want no tags", updated, err)
	}
	update, err := c.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus_USER_STATUS_INACTIVE})
	if err != nil || update.GetStatus() != userv1.UserStatus_USER_STATUS_INACTIVE {
		t.Errorf("UpdateUserStatus() = %v, %v, want INACTIVE", update, err)
	}
	row, err := c.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{UserId: id, Action: "app.login"})
	if err != nil || row.GetAction() != "app.login" {
		t.Errorf("RecordUserActivity() = %v, %v, want app.login", row, err)
	}
	var actions []string
	for row, err := range c.PastActivities(ctx, &userv1.ListUserActivitiesRequest{UserId: id, PageSize: 2, Order: userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST}) {
		if err != nil {
			t.Fatal(err)
		}
		actions = append(actions, row.GetAction())
	}
	want := []string{"user.created", "user.updated", "user.status_changed", "app.login"}
	if !slices.Equal(actions, want) {
		t.Errorf("PastActivities() = %v, want %v", actions, want)
	}
	actions = nil
	err = c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: id, ReplayOnly: true}, func(row *userv1.UserActivity) error {
		actions = append(actions, row.GetAction())
		return nil
	})
	if err != nil || !slices.Equal(actions, want) {
		t.Errorf("StreamUserActivities() = %v, %v, want %v", actions, err, want)
	}
	for update, err := range c.StatusChanges(ctx, &userv1.WatchUserStatusRequest{UserIds: []int64{id}}) {
		if err != nil || update.GetStatus() != userv1.UserStatus_USER_STATUS_INACTIVE {
			t.Errorf("StatusChanges() = %v, %v, want INACTIVE", update, err)
		}
		break
	}
	testBatches(t, c, name)
	for _, write := range []func(context.Context, int64, ...client.WriteOption) (*userv1.User, error){c.DeleteUser, c.UndeleteUser, c.DeleteUser} {
		if _, err := write(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if position, err := c.PurgeUser(ctx, id); err != nil || position == 0 {
		t.Errorf("PurgeUser() = %d, %v, want a position", position, err)
	}
	if _, err := c.GetUser(ctx, id); !errors.Is(err, client.ErrUserNotFound) {
		t.Errorf("GetUser() of a purged user = %v, want ErrUserNotFound", err)
	}
}

func testBatches(t *testing.T, c *client.Client, name string) {
	t.Helper()
	ctx := limited(t)
	create := func(suffix string) *userv1.CreateUserRequest {
		return &userv1.CreateUserRequest{
			Username: name + suffix, Email: strings.ReplaceAll(strings.ToLower(name+suffix), " ", ".") + "@example.org",
		}
	}
	created, err := c.CreateUsers(ctx, &userv1.CreateUsersRequest{Requests: []*userv1.CreateUserRequest{create(" 1"), create(" 1")}})
	if err != nil || len(created) != 2 || created[1].GetFailure().GetReason() != userv1.ErrorReason_USERNAME_TAKEN {
		t.Fatalf("CreateUsers() = %v, %v, want one user, and USERNAME_TAKEN", created, err)
	}
	id := created[0].GetUser().GetUserId()
	changes := []*userv1.UpdateUserRequest{
		{UserId: id, User: &userv1.User{Tags: []string{"x"}}}, {UserId: 5, User: &userv1.User{Tags: []string{"x"}}},
	}
	if results, err := c.UpdateUsers(ctx, &userv1.UpdateUsersRequest{Requests: changes}); err != nil || len(results) != 2 {
		t.Errorf("UpdateUsers() = %v, %v, want two results", results, err)
	}
	var outcomes []userv1.ItemOutcome
	var failed error
	for result, err := range c.BatchUpdates(ctx, slices.Values(changes)) {
		if err != nil {
			t.Fatal(err)
		}
		outcomes, failed = append(outcomes, result.Outcome), result.Err
	}
	want := []userv1.ItemOutcome{userv1.ItemOutcome_ITEM_OUTCOME_UPDATED, userv1.ItemOutcome_ITEM_OUTCOME_FAILED}
	if !slices.Equal(outcomes, want) || !errors.Is(failed, client.ErrUserNotFound) {
		t.Errorf("BatchUpdates() = %v, %v, want %v, ErrUserNotFound", outcomes, failed, want)
	}
	outcomes = nil
	items := []*userv1.BatchCreateUsersRequest{{User: create(" 2")}, {}, {User: create(" 1"), ConflictPolicy: userv1.ConflictPolicy_CONFLICT_POLICY_SKIP}}
	for result, err := range c.BatchCreates(ctx, slices.Values(items)) {
		if err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, result.Outcome)
	}
	want = []userv1.ItemOutcome{
		userv1.ItemOutcome_ITEM_OUTCOME_CREATED, userv1.ItemOutcome_ITEM_OUTCOME_FAILED, userv1.ItemOutcome_ITEM_OUTCOME_UNCHANGED,
	}
	if !slices.Equal(outcomes, want) {
		t.Errorf("BatchCreates() = %v, want %v", outcomes, want)
	}
	count := 0
	for _, err := range c.Users(ctx, &userv1.ListUsersRequest{PageSize: 1, Filter: `username = "` + name + ` *"`}) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if count != 2 {
		t.Errorf("Users() = %d users, want 2", count)
	}
}

func TestErrors(t *testing.T) {
	c := newClient(t, servertest.Start(t))
	ctx := limited(t)
	u := createUser(t, c, 1)
	_, err := c.CreateUser(ctx, &userv1.CreateUserRequest{Username: "a", Email: "b"})
	failure := new(client.Error)
	if !errors.Is(err, client.ErrInvalidField) || !errors.As(err, &failure) || len(failure.Violations) != 2 || failure.Violations[0].Field != "username" {
		t.Errorf("CreateUser() = %v, want violations of username and email", err)
	}
	_, err = c.DeleteUser(ctx, u.GetUserId(), client.IfMatch("other"))
	if !errors.Is(err, client.ErrETagMismatch) || !errors.As(err, &failure) || failure.Metadata["etag"] != u.GetEtag() || connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("DeleteUser() = %v, want ErrETagMismatch with the etag", err)
	}
	const text = "GetUser: not_found: user not found"
	if _, err = c.GetUser(ctx, 5); err == nil || err.Error() != text {
		t.Errorf("GetUser() = %v, want %s", err, text)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.GetUser(canceled, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("GetUser() = %v, want context.Canceled", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetUser(ctx, 5); !errors.Is(err, client.ErrClosed) {
		t.Errorf("GetUser() of a closed client = %v, want ErrClosed", err)
	}
}

// A message that is sent twice is two requests, and one with its own request id is one.
func TestRequestIDs(t *testing.T) {
	c := newClient(t, servertest.Start(t))
	ctx := limited(t)
	u := createUser(t, c, 1)
	record := &userv1.RecordUserActivityRequest{UserId: u.GetUserId(), Action: "app.login"}
	var positions []int64
	for range 2 {
		row, err := c.RecordUserActivity(ctx, record)
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, row.GetActivityId())
	}
	record.RequestId = "8f14e45f-ceea-467f-a3d4-1e3a7a4d2b11"
	for range 2 {
		row, err := c.RecordUserActivity(ctx, record)
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, row.GetActivityId())
	}
	if want := []int64{2, 3, 4, 4}; !slices.Equal(positions, want) {
		t.Errorf("positions = %v, want %v", positions, want)
	}
}

// A token is kept until shortly before it expires.
func TestTokens(t *testing.T) {
	for _, test := range []struct {
		name     string
		lifetime time.Duration
		want     int64 // calls of the source for three calls
	}{{"valid", time.Hour, 1}, {"expires soon", 5 * time.Second, 3}} {
		t.Run(test.name, func(t *testing.T) {
			var renewals, sent atomic.Int64
			spy := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
				return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
					response, err := next(ctx, request)
					if request.Header().Get("Authorization") == "Bearer secret" {
						sent.Add(1)
					}
					return response, err
				}
			})
			source := func(context.Context) (client.Token, error) {
				renewals.Add(1)
				return client.Token{Value: "secret", Expires: time.Now().Add(test.lifetime)}, nil
			}
			c := newClient(t, servertest.Start(t), client.WithInterceptors(spy), client.WithTokens(source))
			for number := range 3 {
				createUser(t, c, number)
			}
			if renewals.Load() != test.want || sent.Load() != 3 {
				t.Errorf("the source was called %d times and %d calls had the token, want %d and 3", renewals.Load(), sent.Load(), test.want)
			}
		})
	}
}

func TestTokenSourceFails(t *testing.T) {
	source := func(context.Context) (client.Token, error) { return client.Token{}, errors.New("no network") }
	c := newClient(t, servertest.Start(t), client.WithTokens(source))
	const want = "GetUser: unauthenticated: get token: no network"
	if _, err := c.GetUser(limited(t), 5); err == nil || err.Error() != want {
		t.Errorf("GetUser() = %v, want %s", err, want)
	}
	stream := func(*userv1.UserActivity) error { return nil }
	if err := c.StreamUserActivities(limited(t), &userv1.StreamUserActivitiesRequest{}, stream); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("StreamUserActivities() = %v, want unauthenticated", err)
	}
}

func TestTLSAndCertificates(t *testing.T) {
	authority := servertest.NewAuthority(t)
	dir, clientDir := t.TempDir(), t.TempDir()
	cert, key := authority.Server(t).Write(t, dir)
	ca := servertest.WriteFile(t, dir, "ca.pem", authority.PEM)
	rules := servertest.WriteFile(t, dir, "rules.json", []byte(`{"rules":[{"uri":"spiffe://example.org/app","permissions":["users.read"]}]}`))
	s := servertest.Start(t, servertest.Config(func(c *server.Config) {
		c.TLSCert, c.TLSKey, c.TLSClientCA, c.TLSClientRules = cert, key, ca, rules
	}))
	ctx := limited(t)
	connectTo := func(options ...client.Option) *client.Client {
		c, err := client.New([]string{"https://" + s.Addr()}, options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	anonymous, err := client.LoadTLS(ca, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connectTo(client.WithTLS(anonymous)).GetUser(ctx, 5); !errors.Is(err, client.ErrCredentialsMissing) {
		t.Errorf("GetUser() without a certificate = %v, want ErrCredentialsMissing", err)
	}
	clientCert, clientKey := authority.Client(t, "spiffe://example.org/app").Write(t, clientDir)
	settings, err := client.LoadTLS(ca, clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []client.Protocol{client.GRPC, client.GRPCWeb, client.Connect} {
		c := connectTo(client.WithTLS(settings), client.WithProtocol(protocol))
		if _, err := c.GetUser(ctx, 5); !errors.Is(err, client.ErrUserNotFound) {
			t.Errorf("GetUser() with a certificate = %v, want ErrUserNotFound", err)
		}
	}
	if _, err := connectTo().GetUser(ctx, 5); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("GetUser() from an unknown authority = %v, want unavailable", err)
	}
	for _, files := range [][3]string{{"none", "", ""}, {ca, cert, ""}, {key, "", ""}, {ca, ca, key}} {
		if _, err := client.LoadTLS(files[0], files[1], files[2]); err == nil {
			t.Errorf("LoadTLS(%q) succeeded, want an error", files)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "userd.sock")
	s := servertest.Start(t, servertest.Config(func(c *server.Config) { c.Listen = "unix:" + path }))
	_ = s
	c, err := client.New([]string{"unix:" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	createUser(t, c, 1)
}

// Each address of a name is a node. Addresses that are added are used, and removed ones are not.
func TestLookup(t *testing.T) {
	first, second := servertest.Start(t, servertest.Parallel()), servertest.Start(t, servertest.Parallel())
	_, port, err := net.SplitHostPort(first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	var addresses atomic.Pointer[[]string]
	addresses.Store(&[]string{"192.0.2.1"})
	c, err := client.NewWithResolver([]string{"dns+http://userd.test:" + port},
		func(context.Context, string) ([]string, error) { return *addresses.Load(), nil },
		client.WithLookup(time.Millisecond),
		client.WithDialer(func(ctx context.Context, _, addr string) (net.Conn, error) {
			switch netip.MustParseAddrPort(addr).Addr().String() {
			case "192.0.2.1":
				return first.Dial(ctx)
			default:
				return second.Dial(ctx)
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ctx := limited(t)
	u := createUser(t, c, 1)
	addresses.Store(&[]string{"192.0.2.2"})
	for {
		_, err := c.GetUser(ctx, u.GetUserId())
		if errors.Is(err, client.ErrUserNotFound) {
			return // the second server
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestMetricsAndTraces(t *testing.T) {
	registry, spans := prometheus.NewRegistry(), tracetest.NewInMemoryExporter()
	c := newClient(t, servertest.Start(t), client.WithMetrics(registry), client.WithTracing(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))))
	ctx := limited(t)
	u := createUser(t, c, 1)
	_, _ = c.GetUser(ctx, 5)
	err := c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: u.GetUserId(), ReplayOnly: true}, func(*userv1.UserActivity) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	const want = `
# HELP grpc_client_handled_total RPCs completed by the client.
# TYPE grpc_client_handled_total counter
grpc_client_handled_total{grpc_code="NotFound",grpc_method="GetUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1
grpc_client_handled_total{grpc_code="OK",grpc_method="CreateUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1
grpc_client_handled_total{grpc_code="OK",grpc_method="GetUser",grpc_service="user.v1.UserService",grpc_type="unary"} 0
grpc_client_handled_total{grpc_code="OK",grpc_method="StreamUserActivities",grpc_service="user.v1.UserService",grpc_type="server_stream"} 1
# HELP grpc_client_msg_received_total Messages received by the client.
# TYPE grpc_client_msg_received_total counter
grpc_client_msg_received_total{grpc_method="CreateUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1
grpc_client_msg_received_total{grpc_method="GetUser",grpc_service="user.v1.UserService",grpc_type="unary"} 0
grpc_client_msg_received_total{grpc_method="StreamUserActivities",grpc_service="user.v1.UserService",grpc_type="server_stream"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "grpc_client_handled_total", "grpc_client_msg_received_total"); err != nil {
		t.Error(err)
	}
	var names []string
	for _, span := range spans.GetSpans() {
		names = append(names, span.Name)
	}
	wantNames := []string{"user.v1.UserService/CreateUser", "user.v1.UserService/GetUser", "user.v1.UserService/StreamUserActivities"}
	if !slices.Equal(names, wantNames) {
		t.Errorf("spans = %q, want %q", names, wantNames)
	}
}

// A client can be closed while a name is looked up.
func TestCloseDuringLookup(t *testing.T) {
	for range 200 {
		looked := make(chan struct{})
		var once sync.Once
		c, err := client.NewWithResolver([]string{"dns+http://userd.test:80"}, func(context.Context, string) ([]string, error) {
			once.Do(func() { close(looked) })
			return []string{"192.0.2.1"}, nil
		}, client.WithLookup(time.Nanosecond), client.WithDialer(func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no network")
		}))
		if err != nil {
			t.Fatal(err)
		}
		<-looked
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Close closes all connections, also those with streams, and ends the streams with ErrClosed.
func TestCloseClosesConnections(t *testing.T) {
	s := servertest.Start(t)
	var mu sync.Mutex
	var open []net.Conn
	c := newClient(t, s, client.WithConnections(3), client.WithDialer(func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := s.Dial(ctx)
		mu.Lock()
		defer mu.Unlock()
		open = append(open, conn)
		return conn, err
	}))
	createUser(t, c, 1)
	started, ended := make(chan struct{}, 2), make(chan error, 2)
	for range 2 {
		go func() {
			ended <- c.StreamUserActivities(limited(t), &userv1.StreamUserActivitiesRequest{}, func(*userv1.UserActivity) error {
				started <- struct{}{}
				return nil
			})
		}()
		<-started
	}
	session := c.OpenStatusSession(limited(t), nil)
	if err := session.FollowAll(limited(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, client.ErrClosed) {
			t.Errorf("StreamUserActivities() = %v, want ErrClosed", err)
		}
	}
	if _, err := session.Follow(limited(t), 1); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Follow() = %v, want ErrClosed", err)
	}
	for i, conn := range open {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("connection %d: Read() = %v, want ErrClosed", i, err)
		}
	}
}
