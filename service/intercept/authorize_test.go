package intercept_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// needed repeats the permission of each RPC, independently of the policy table.
var needed = map[protoreflect.Name]auth.Permission{
	"GetUser": auth.UsersRead, "BatchGetUsers": auth.UsersRead, "ListUsers": auth.UsersRead,
	"CreateUser": auth.UsersWrite, "CreateUsers": auth.UsersWrite, "BatchCreateUsers": auth.UsersWrite,
	"UpdateUser": auth.UsersWrite, "UpdateUsers": auth.UsersWrite, "BatchUpdateUsers": auth.UsersWrite,
	"DeleteUser": auth.UsersDelete, "UndeleteUser": auth.UsersDelete, "PurgeUser": auth.UsersPurge,
	"StreamUserActivities": auth.ActivitiesRead, "ListUserActivities": auth.ActivitiesRead,
	"RecordUserActivity": auth.ActivitiesRecord,
	"SyncUserStatus":     auth.StatusRead, "WatchUserStatus": auth.StatusRead,
	"UpdateUserStatus": auth.StatusWrite,
	"WatchUsers":       auth.UsersRead,
}

// through is the code of calls that pass authorization. Only SyncUserStatus is implemented.
const through = connect.CodeUnimplemented

// handlers implements SyncUserStatus, which returns the result of each item.
type handlers struct {
	userv1connect.UnimplementedUserServiceHandler
}

func (handlers) SyncUserStatus(
	ctx context.Context, stream *connect.BidiStream[userv1.UserStatusUpdate, userv1.UserStatusUpdate],
) error {
	for {
		item, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return connect.NewError(through, errors.New("end of stream"))
		}
		if err != nil {
			return err
		}
		res := &userv1.UserStatusUpdate{ClientSeq: item.GetClientSeq()}
		if err := auth.AuthorizeMessage(ctx, userv1connect.UserServiceSyncUserStatusProcedure, item); err != nil {
			res.Error, _ = rpcstatus.From(err)
		}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

// callerFromHeader reads the caller's permissions from a test header.
func callerFromHeader(r *http.Request) (auth.Caller, error) {
	names, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Test ")
	if !ok {
		return auth.Caller{}, &auth.RefusedError{Cause: auth.CauseMissing}
	}
	caller := auth.Caller{Subject: "ann", Kind: auth.Token}
	for name := range strings.SplitSeq(names, " ") {
		caller.Permissions |= auth.PermissionsOf(auth.Permission(name))
	}
	return caller, nil
}

// serve runs the handlers with the interceptors and, if set, the middleware.
func serve(t *testing.T, middleware bool) *httptest.Server {
	t.Helper()
	policy := auth.NewPolicy(auth.ReflectionOff)
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(handlers{}, connect.WithInterceptors(
		intercept.NewErrors(slog.New(slog.DiscardHandler)), intercept.NewAuthorize(policy), intercept.Expiry{},
	)))
	var handler http.Handler = mux
	if middleware {
		handler = auth.Middleware(auth.MiddlewareOptions{Authenticate: callerFromHeader, Policy: policy})(mux)
	}
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.Client().CloseIdleConnections()
		server.Close()
	})
	return server
}

// noLeaks checks for leaked goroutines at the end of the test. Call it first.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
}

// grant authenticates every call with the permissions. Without permissions no credentials are sent.
func grant(permissions auth.Permissions) connect.ClientOption {
	return connect.WithInterceptors(granting(permissions))
}

type granting auth.Permissions

func (g granting) header(h http.Header) {
	if g != 0 {
		var names []string
		for _, p := range auth.Permissions(g).List() {
			names = append(names, string(p))
		}
		h.Set("Authorization", "Test "+strings.Join(names, " "))
	}
}

func (g granting) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		g.header(req.Header())
		return next(ctx, req)
	}
}

func (g granting) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		g.header(conn.RequestHeader())
		return conn
	}
}

func (g granting) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

var protocols = map[string]connect.ClientOption{
	"connect": connect.WithClientOptions(), "grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb(),
}

// call calls an RPC of any kind, with 1 in the first field if that is a number, and returns
// the error.
func call(t *testing.T, server *httptest.Server, method protoreflect.MethodDescriptor, options ...connect.ClientOption) error {
	t.Helper()
	message := new(emptypb.Empty)
	message.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1))
	procedure := path.Join("/", string(method.Parent().FullName()), string(method.Name()))
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](server.Client(), server.URL+procedure, options...)
	switch {
	case method.IsStreamingClient() && method.IsStreamingServer():
		stream := client.CallBidiStream(t.Context())
		defer func() { _ = stream.CloseResponse() }()
		_ = stream.Send(message) // Receive returns the error
		_ = stream.CloseRequest()
		for {
			if _, err := stream.Receive(); err != nil {
				return err
			}
		}
	case method.IsStreamingClient():
		stream := client.CallClientStream(t.Context())
		_ = stream.Send(message)
		_, err := stream.CloseAndReceive()
		return err
	case method.IsStreamingServer():
		stream, err := client.CallServerStream(t.Context(), connect.NewRequest(message))
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		for stream.Receive() {
		}
		return stream.Err()
	default:
		_, err := client.CallUnary(t.Context(), connect.NewRequest(message))
		return err
	}
}

// errorInfo returns the ErrorInfo detail of an error.
func errorInfo(err error) *errdetails.ErrorInfo {
	var e *connect.Error
	if errors.As(err, &e) {
		for _, detail := range e.Details() {
			if value, err := detail.Value(); err == nil {
				if info, ok := value.(*errdetails.ErrorInfo); ok {
					return info
				}
			}
		}
	}
	return new(errdetails.ErrorInfo)
}

// For every RPC and protocol: an anonymous caller is UNAUTHENTICATED, with and without the
// middleware; a caller without the one permission is denied; a caller with only that
// permission passes.
func TestEveryProcedureIsAuthorized(t *testing.T) {
	noLeaks(t)
	guarded, bare := serve(t, true), serve(t, false)
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	if methods.Len() != len(needed) {
		t.Errorf("%d RPCs, %d in needed", methods.Len(), len(needed))
	}
	for i := range methods.Len() {
		method := methods.Get(i)
		need, ok := needed[method.Name()]
		if !ok {
			t.Errorf("%s is missing in needed", method.Name())
		}
		for name, protocol := range protocols {
			for _, server := range []*httptest.Server{guarded, bare} {
				err := call(t, server, method, protocol, grant(0))
				if connect.CodeOf(err) != connect.CodeUnauthenticated || errorInfo(err).GetReason() != string(user.CredentialsMissing) {
					t.Errorf("%s, %s, anonymous: %v", method.Name(), name, err)
				}
			}
			err := call(t, guarded, method, protocol, grant(auth.AllPermissions().Without(need)))
			info := errorInfo(err)
			if connect.CodeOf(err) != connect.CodePermissionDenied || info.GetReason() != string(user.PermissionMissing) ||
				info.GetMetadata()["permission"] != string(need) {
				t.Errorf("%s, %s, without %s: %v, %v", method.Name(), name, need, err, info)
			}
			if err := call(t, guarded, method, protocol, grant(auth.PermissionsOf(need))); connect.CodeOf(err) != through {
				t.Errorf("%s, %s, with only %s: %v", method.Name(), name, need, err)
			}
		}
	}
}

func TestConditionsOnRequests(t *testing.T) {
	noLeaks(t)
	server := serve(t, true)
	for _, row := range []struct {
		name string
		base auth.Permission
		more auth.Permission
		call func(context.Context, userv1connect.UserServiceClient) error
	}{
		{"the whole log", auth.ActivitiesRead, auth.ActivitiesReadAll, func(ctx context.Context, c userv1connect.UserServiceClient) error {
			stream, err := c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
			return drained(stream, err)
		}},
		{"the whole log, paged", auth.ActivitiesRead, auth.ActivitiesReadAll, func(ctx context.Context, c userv1connect.UserServiceClient) error {
			_, err := c.ListUserActivities(ctx, &userv1.ListUserActivitiesRequest{})
			return err
		}},
		{"watching everybody", auth.StatusRead, auth.UsersWatchAll, func(ctx context.Context, c userv1connect.UserServiceClient) error {
			stream, err := c.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{All: true})
			return drained(stream, err)
		}},
		{"deleted users", auth.UsersRead, auth.UsersReadDeleted, func(ctx context.Context, c userv1connect.UserServiceClient) error {
			_, err := c.ListUsers(ctx, &userv1.ListUsersRequest{ShowDeleted: true})
			return err
		}},
		{"watching deleted users", auth.UsersRead, auth.UsersReadDeleted, func(ctx context.Context, c userv1connect.UserServiceClient) error {
			stream, err := c.WatchUsers(ctx, &userv1.WatchUsersRequest{ShowDeleted: true})
			return drained(stream, err)
		}},
	} {
		for name, protocol := range protocols {
			client := func(p auth.Permissions) userv1connect.UserServiceClient {
				return userv1connect.NewUserServiceClient(server.Client(), server.URL, protocol, grant(p))
			}
			err := row.call(t.Context(), client(auth.AllPermissions().Without(row.more)))
			if info := errorInfo(err); connect.CodeOf(err) != connect.CodePermissionDenied || info.GetMetadata()["permission"] != string(row.more) {
				t.Errorf("%s, %s, without %s: %v", row.name, name, row.more, err)
			}
			if err := row.call(t.Context(), client(auth.PermissionsOf(row.base, row.more))); connect.CodeOf(err) != through {
				t.Errorf("%s, %s, with all permissions: %v", row.name, name, err)
			}
		}
	}
}

func drained[T any](stream *connect.ServerStreamForClient[T], err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
	}
	return stream.Err()
}

// A denied SyncUserStatus item fails alone; the items before and after it succeed.
func TestConditionsOnItems(t *testing.T) {
	noLeaks(t)
	server := serve(t, true)
	items := []*userv1.UserStatusUpdate{
		{ClientSeq: 1, UserId: 1},
		{ClientSeq: 2, UserId: 1, Status: userv1.UserStatus_USER_STATUS_INACTIVE},
		{ClientSeq: 3},
		{ClientSeq: 4, UserId: 2},
	}
	all := []auth.Permission{auth.StatusRead, auth.StatusWrite, auth.UsersWatchAll}
	for _, row := range []struct {
		without auth.Permission
		failing int64
	}{{"", 0}, {auth.StatusWrite, 2}, {auth.UsersWatchAll, 3}} {
		may := auth.PermissionsOf(all...).Without(row.without)
		for name, protocol := range protocols {
			client := userv1connect.NewUserServiceClient(server.Client(), server.URL, protocol, grant(may))
			stream, err := client.SyncUserStatus(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var failed []int64
			for _, item := range items {
				if err := stream.Send(item); err != nil {
					t.Fatalf("%s: got %v", name, err)
				}
				res, err := stream.Receive()
				if err != nil || res.GetClientSeq() != item.GetClientSeq() {
					t.Fatalf("%s: got %v, %v", name, res, err)
				}
				if res.GetError() != nil {
					failed = append(failed, res.GetClientSeq())
					if got := permissionOf(res.GetError()); got != string(row.without) {
						t.Errorf("%s: item %d: permission = %q, want %q", name, res.GetClientSeq(), got, row.without)
					}
				}
			}
			if want := []int64{row.failing}; row.failing != 0 && !slices.Equal(failed, want) || row.failing == 0 && failed != nil {
				t.Errorf("%s, without %q: items %v failed", name, row.without, failed)
			}
			_ = stream.CloseRequest()
			if _, err := stream.Receive(); connect.CodeOf(err) != through {
				t.Errorf("%s: stream error = %v", name, err)
			}
			_ = stream.CloseResponse()
		}
	}
}

func permissionOf(s *status.Status) string {
	info := new(errdetails.ErrorInfo)
	if len(s.GetDetails()) != 1 || s.GetDetails()[0].UnmarshalTo(info) != nil || info.GetReason() != string(user.PermissionMissing) {
		return s.String()
	}
	return info.GetMetadata()["permission"]
}

// An alternative spelling of a path is authorized like the procedure.
func TestAlternativePathSpelling(t *testing.T) {
	noLeaks(t)
	server := serve(t, true)
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](
		server.Client(), server.URL+"/user.v1.UserService/%47etUser", grant(auth.PermissionsOf(auth.UsersWrite)))
	_, err := client.CallUnary(t.Context(), connect.NewRequest(new(emptypb.Empty)))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("error = %v", err)
	}
}
