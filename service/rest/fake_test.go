package rest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/rpc"
	"github.com/yourorg/userservice/service/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testEtag = "3-k2x"

// fake is a user service with configured results that records the requests.
type fake struct {
	userv1connect.UnimplementedUserServiceHandler

	get        func(context.Context, *userv1.GetUserRequest) (*userv1.GetUserResponse, error)
	list       func(context.Context, *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error)
	stream     func(context.Context, *userv1.StreamUserActivitiesRequest, *connect.ServerStream[userv1.UserActivity]) error
	watch      func(context.Context, *userv1.WatchUserStatusRequest, *connect.ServerStream[userv1.UserStatusUpdate]) error
	watchUsers func(context.Context, *userv1.WatchUsersRequest, *connect.ServerStream[userv1.WatchUsersResponse]) error
	fail       error // of every other call

	mu       sync.Mutex
	received []proto.Message
}

func (f *fake) record(m proto.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.received = append(f.received, m)
}

func (f *fake) receivedMessages() []proto.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	received := f.received
	f.received = nil
	return received
}

func (f *fake) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	f.record(req)
	if f.get != nil {
		return f.get(ctx, req)
	}
	reqinfo.HeaderOfResponse(ctx).Set(rest.EtagHeader, `"`+testEtag+`"`)
	return &userv1.GetUserResponse{User: testUser(req.GetUserId())}, nil
}

func (f *fake) BatchGetUsers(_ context.Context, req *userv1.BatchGetUsersRequest) (*userv1.BatchGetUsersResponse, error) {
	f.record(req)
	return &userv1.BatchGetUsersResponse{}, f.fail
}

func (f *fake) ListUsers(ctx context.Context, req *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
	f.record(req)
	if f.list != nil {
		return f.list(ctx, req)
	}
	return &userv1.ListUsersResponse{}, f.fail
}

func (f *fake) CreateUser(_ context.Context, req *userv1.CreateUserRequest) (*userv1.CreateUserResponse, error) {
	f.record(req)
	return &userv1.CreateUserResponse{User: testUser(1)}, f.fail
}

func (f *fake) UpdateUser(_ context.Context, req *userv1.UpdateUserRequest) (*userv1.UpdateUserResponse, error) {
	f.record(req)
	return &userv1.UpdateUserResponse{User: testUser(req.GetUserId())}, f.fail
}

func (f *fake) DeleteUser(_ context.Context, req *userv1.DeleteUserRequest) (*userv1.DeleteUserResponse, error) {
	f.record(req)
	return &userv1.DeleteUserResponse{User: testUser(req.GetUserId())}, f.fail
}

func (f *fake) UndeleteUser(_ context.Context, req *userv1.UndeleteUserRequest) (*userv1.UndeleteUserResponse, error) {
	f.record(req)
	return &userv1.UndeleteUserResponse{User: testUser(req.GetUserId())}, f.fail
}

func (f *fake) PurgeUser(_ context.Context, req *userv1.PurgeUserRequest) (*userv1.PurgeUserResponse, error) {
	f.record(req)
	return &userv1.PurgeUserResponse{ActivityId: 9}, f.fail
}

func (f *fake) CreateUsers(_ context.Context, req *userv1.CreateUsersRequest) (*userv1.CreateUsersResponse, error) {
	f.record(req)
	return &userv1.CreateUsersResponse{}, f.fail
}

func (f *fake) UpdateUsers(_ context.Context, req *userv1.UpdateUsersRequest) (*userv1.UpdateUsersResponse, error) {
	f.record(req)
	return &userv1.UpdateUsersResponse{}, f.fail
}

func (f *fake) ListUserActivities(_ context.Context, req *userv1.ListUserActivitiesRequest) (*userv1.ListUserActivitiesResponse, error) {
	f.record(req)
	return &userv1.ListUserActivitiesResponse{}, f.fail
}

func (f *fake) RecordUserActivity(_ context.Context, req *userv1.RecordUserActivityRequest) (*userv1.RecordUserActivityResponse, error) {
	f.record(req)
	return &userv1.RecordUserActivityResponse{}, f.fail
}

func (f *fake) UpdateUserStatus(_ context.Context, req *userv1.UpdateUserStatusRequest) (*userv1.UpdateUserStatusResponse, error) {
	f.record(req)
	return &userv1.UpdateUserStatusResponse{}, f.fail
}

func (f *fake) StreamUserActivities(
	ctx context.Context, req *userv1.StreamUserActivitiesRequest, stream *connect.ServerStream[userv1.UserActivity],
) error {
	f.record(req)
	if f.stream == nil {
		return f.fail
	}
	return f.stream(ctx, req, stream)
}

func (f *fake) WatchUserStatus(
	ctx context.Context, req *userv1.WatchUserStatusRequest, stream *connect.ServerStream[userv1.UserStatusUpdate],
) error {
	f.record(req)
	if f.watch == nil {
		return f.fail
	}
	return f.watch(ctx, req, stream)
}

func (f *fake) WatchUsers(
	ctx context.Context, req *userv1.WatchUsersRequest, stream *connect.ServerStream[userv1.WatchUsersResponse],
) error {
	f.record(req)
	if f.watchUsers == nil {
		return f.fail
	}
	return f.watchUsers(ctx, req, stream)
}

func testUser(id int64) *userv1.User {
	return &userv1.User{
		UserId: id, Username: "ann", Email: "ann@example.com",
		Status: userv1.UserStatus_USER_STATUS_ACTIVE, Version: 3, Etag: testEtag,
	}
}

// connectHandler is the Connect handler with the error interceptor.
func connectHandler(f *fake) http.Handler {
	errors := intercept.NewErrors(slog.New(slog.DiscardHandler))
	_, handler := userv1connect.NewUserServiceHandler(f, connect.WithInterceptors(rest.Interceptor{}, errors))
	return handler
}

// methodsOf returns the unary RPCs with the error interceptor.
func methodsOf(f *fake) rpc.Methods {
	return rpc.UserService(f, intercept.NewErrors(slog.New(slog.DiscardHandler)))
}

func newHandler(t testing.TB, f *fake, change ...func(*rest.Options)) http.Handler {
	t.Helper()
	opts := rest.Options{
		Handler: connectHandler(f), Methods: methodsOf(f), MaxMessageBytes: 4 << 20,
		Authorize: func(context.Context, string) error { return nil },
		Messages: codec.NewMessages(codec.MessageOptions{
			TooLarge:    func(_ *http.Request, limit int64) error { return intercept.NewTooLargeError(limit) },
			DecodedSize: func(protoreflect.MessageDescriptor, bool, []byte) int64 { return 0 },
		}),
		Compressors: codec.NewCompressors(), Refused: func(user.Reason) {}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&opts)
	}
	handler, err := rest.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

type request struct {
	method, path, body string
	header             map[string]string
	gzip               bool
}

func (q request) make(t *testing.T) *http.Request {
	t.Helper()
	var body io.Reader
	if q.body != "" {
		data := []byte(q.body)
		if q.gzip {
			data = packed(t, data)
		}
		body = bytes.NewReader(data)
	}
	r := httptest.NewRequestWithContext(t.Context(), q.method, q.path, body)
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if q.gzip {
		r.Header.Set("Content-Encoding", "gzip")
	}
	for name, value := range q.header {
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Set(name, value)
	}
	return r
}

func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func serve(t *testing.T, h http.Handler, q request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q.make(t))
	return w
}

// problem is a decoded error.
type problem struct {
	code   int32
	reason string
	fields []string
	meta   map[string]string
}

func readProblem(t *testing.T, body []byte) problem {
	t.Helper()
	s := &status.Status{}
	if err := protojson.Unmarshal(body, s); err != nil {
		t.Fatalf("the body is no Status: %v\n%s", err, body)
	}
	p := problem{code: s.GetCode()}
	for _, packed := range s.GetDetails() {
		message, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch d := message.(type) {
		case *errdetails.ErrorInfo:
			p.reason, p.meta = d.GetReason(), d.GetMetadata()
			if d.GetDomain() != "user.v1" {
				t.Errorf("domain %q", d.GetDomain())
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				p.fields = append(p.fields, v.GetField())
			}
		}
	}
	slices.Sort(p.fields)
	return p
}

func mismatch() error {
	return &user.Error{
		Code: user.Aborted, Reason: user.EtagMismatch, Message: "changed in between",
		Metadata: map[string]string{"etag": "4-zz", "changed_fields": "email"},
	}
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q is not in %q", part, text)
	}
}
