package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// errorContent is the protocol-independent content of an error.
type errorContent struct {
	Code     connect.Code
	Message  string
	Reason   string
	Metadata map[string]string
	Fields   []string // with reasons
	Retry    bool
}

func (o *errorContent) add(detail proto.Message) {
	switch d := detail.(type) {
	case *errdetails.ErrorInfo:
		o.Reason, o.Metadata = d.GetReason(), d.GetMetadata()
		delete(o.Metadata, "incident") // unique for each failure
	case *errdetails.BadRequest:
		for _, v := range d.GetFieldViolations() {
			o.Fields = append(o.Fields, v.GetField()+" "+v.GetReason()+" "+v.GetDescription())
		}
	case *errdetails.RetryInfo:
		o.Retry = true
	}
}

func contentFromRPC(t *testing.T, err error) errorContent {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an error of the server: %v", err)
	}
	o := errorContent{Code: e.Code(), Message: e.Message()}
	for _, d := range e.Details() {
		value, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		o.add(value)
	}
	return o
}

func contentFromREST(t *testing.T, body string) errorContent {
	t.Helper()
	var s status.Status
	if err := protojson.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	o := errorContent{Code: connect.Code(s.GetCode()), Message: s.GetMessage()}
	for _, packed := range s.GetDetails() {
		value, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		o.add(value)
	}
	return o
}

// failingStore fails for ids that name a failure.
type failingStore struct{ user.Store }

var failures = map[int64]*user.Error{
	9001: {Code: user.Unavailable, Reason: user.StoreUnavailable, Message: "the store is away"},
	9002: {Code: user.ResourceExhausted, Reason: user.StoreFull, Message: "the disk is full"},
	9003: {Code: user.FailedPrecondition, Reason: user.StoreReadOnly, Message: "the store is read only"},
	9004: {Code: user.Unavailable, Reason: user.Overloaded, Message: "too much to do"},
}

func (s failingStore) Get(ctx context.Context, id int64) (*user.User, error) {
	if err := failures[id]; err != nil {
		return nil, err
	}
	if id == failID {
		return nil, errors.New("secret of a store")
	}
	return s.Store.Get(ctx, id)
}

// request is a request over REST.
type request struct {
	method, path, body string
	header             http.Header
}

func (r request) send(t *testing.T, client *http.Client) (int, string) {
	t.Helper()
	message, err := http.NewRequestWithContext(t.Context(), r.method, "http://userd.test"+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.body != "" {
		message.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(message.Header, r.header)
	response, err := client.Do(message)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// headed adds headers to each request of any protocol.
type headed struct {
	http.RoundTripper

	header http.Header
}

func (h headed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	maps.Copy(r.Header, h.header)
	return h.RoundTripper.RoundTrip(r)
}

// failing is a call that fails, by RPC and by REST.
type failing struct {
	reason user.Reason
	status int // HTTP status
	rpc    func(context.Context, userv1connect.UserServiceClient) error
	rest   request

	header http.Header   // over RPC and REST
	want   *errorContent // nil: only compare the protocols
	noREST string        // reason why REST has no such call
	http2  bool          // requires HTTP/2
	hasty  bool          // fails only when repeated quickly
}

func (f *failing) client(s *servertest.Server, http2 bool) *http.Client {
	client := *s.HTTP(http2)
	client.Transport = headed{client.Transport, f.header}
	return &client
}

// maxAttempts is enough calls to exceed the rate, even on a slow machine.
const maxAttempts = 20

func (f *failing) byREST(t *testing.T, s *servertest.Server) errorContent {
	t.Helper()
	code, body := f.rest.send(t, f.client(s, false))
	for n := 0; f.hasty && code == http.StatusOK && n < maxAttempts; n++ {
		code, body = f.rest.send(t, f.client(s, false))
	}
	got := contentFromREST(t, body)
	if code != f.status || got.Reason != string(f.reason) || got.Message == "" {
		t.Fatalf("REST: got %d %+v, want %d %s", code, got, f.status, f.reason)
	}
	if f.reason == user.InvalidField && len(got.Fields) == 0 {
		t.Errorf("REST names no field: %s", body)
	}
	return got
}

func (f *failing) byRPC(t *testing.T, s *servertest.Server, p servertest.Protocol) errorContent {
	t.Helper()
	client := userv1connect.NewUserServiceClient(f.client(s, p.HTTP2), "http://userd.test", p.Options...)
	err := f.rpc(t.Context(), client)
	for n := 0; f.hasty && err == nil && n < maxAttempts; n++ {
		err = f.rpc(t.Context(), client)
	}
	return contentFromRPC(t, err)
}

// compare checks that the call fails with the same error over all protocols.
func (f *failing) compare(t *testing.T, s *servertest.Server) {
	t.Helper()
	want, wanted := f.want, "the row"
	if f.noREST == "" {
		got := f.byREST(t, s)
		if want == nil {
			want, wanted = &got, "REST"
		} else if diff := cmp.Diff(*want, got); diff != "" {
			t.Errorf("the row (-) and REST (+) differ:\n%s", diff)
		}
	}
	for _, p := range servertest.Protocols() {
		if f.http2 && !p.HTTP2 {
			continue
		}
		if diff := cmp.Diff(*want, f.byRPC(t, s, p)); diff != "" {
			t.Errorf("%s (-) and %s (+) differ:\n%s", wanted, p.Name, diff)
		}
	}
}

// whose are the users of these tests.
type whose struct{ ada, gone int64 }

func (w whose) rows() map[string]failing {
	type client = userv1connect.UserServiceClient
	get := func(id int64, reason user.Reason, status int) failing {
		return failing{reason: reason, status: status, rpc: func(ctx context.Context, c client) error {
			_, err := c.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
			return err
		}, rest: request{method: "GET", path: fmt.Sprintf("/api/v1/users/%d", id)}}
	}
	create := func(body string, reason user.Reason, status int) failing {
		var message userv1.CreateUserRequest
		if err := protojson.Unmarshal([]byte(body), &message); err != nil {
			panic(err)
		}
		return failing{reason: reason, status: status, rpc: func(ctx context.Context, c client) error {
			_, err := c.CreateUser(ctx, &message)
			return err
		}, rest: request{method: "POST", path: "/api/v1/users", body: body}}
	}
	list := func(message *userv1.ListUsersRequest, query string) failing {
		return failing{reason: user.InvalidField, status: 400, rpc: func(ctx context.Context, c client) error {
			_, err := c.ListUsers(ctx, message)
			return err
		}, rest: request{method: "GET", path: "/api/v1/users?" + query}}
	}
	all := map[string]failing{
		"no such user":        get(42, user.UserNotFound, 404),
		"store away":          get(9001, user.StoreUnavailable, 503),
		"store full":          get(9002, user.StoreFull, 429),
		"store read only":     get(9003, user.StoreReadOnly, 400),
		"overloaded":          get(9004, user.Overloaded, 503),
		"unexpected":          get(failID, user.InternalError, 500),
		"rules broken":        create(`{"username": "ab", "email": "x", "tags": ["a", ""]}`, user.InvalidField, 400),
		"username taken":      create(`{"username": "ADA", "email": "other@example.com"}`, user.UsernameTaken, 409),
		"e-mail taken":        create(`{"username": "other", "email": "ada@EXAMPLE.com"}`, user.EmailTaken, 409),
		"taken by a deletion": create(`{"username": "gone", "email": "other@example.com"}`, user.UsernameTaken, 409),
		"request id reused": create(`{"username": "other", "email": "other@example.com", "requestId": "`+usedID+`"}`,
			user.RequestIDReused, 409),
		"bad filter":     list(&userv1.ListUsersRequest{Filter: "colour = 1"}, "filter=colour+%3D+1"),
		"bad order":      list(&userv1.ListUsersRequest{OrderBy: "colour"}, "orderBy=colour"),
		"bad page token": list(&userv1.ListUsersRequest{PageToken: "x"}, "pageToken=x"),
		"bad page size":  list(&userv1.ListUsersRequest{PageSize: -1}, "pageSize=-1"),
	}
	maps.Copy(all, w.updates())
	return all
}

// updates are rejected updates.
func (w whose) updates() map[string]failing {
	type client = userv1connect.UserServiceClient
	const eveJSON = `{"email": "eve@example.com"}`
	update := func(id int64, message *userv1.UpdateUserRequest, query string, reason user.Reason, status int) failing {
		message.UserId = id
		return failing{reason: reason, status: status, rpc: func(ctx context.Context, c client) error {
			_, err := c.UpdateUser(ctx, message)
			return err
		}, rest: request{method: "PATCH", path: fmt.Sprintf("/api/v1/users/%d?%s", id, query), body: eveJSON}}
	}
	eve := func() *userv1.User { return &userv1.User{Email: "eve@example.com"} }
	return map[string]failing{
		"bad mask": update(w.ada, &userv1.UpdateUserRequest{
			User: eve(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"colour"}},
		}, "updateMask=colour", user.InvalidField, 400),
		"output only in a mask": update(w.ada, &userv1.UpdateUserRequest{
			User: eve(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"version"}},
		}, "updateMask=version", user.InvalidField, 400),
		"deleted":       update(w.gone, &userv1.UpdateUserRequest{User: eve()}, "", user.UserDeleted, 400),
		"etag mismatch": update(w.ada, &userv1.UpdateUserRequest{User: eve(), Etag: "x"}, "etag=x", user.EtagMismatch, 409),
		"not deleted": {reason: user.UserNotDeleted, status: 400, rpc: func(ctx context.Context, c client) error {
			_, err := c.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: w.ada})
			return err
		}, rest: request{method: "POST", path: fmt.Sprintf("/api/v1/users/%d:undelete", w.ada), body: "{}"}},
		"purge, not deleted": {reason: user.UserNotDeleted, status: 400, rpc: func(ctx context.Context, c client) error {
			_, err := c.PurgeUser(ctx, &userv1.PurgeUserRequest{UserId: w.ada})
			return err
		}, rest: request{method: "POST", path: fmt.Sprintf("/api/v1/users/%d:purge", w.ada), body: "{}"}},
	}
}

const usedID = "6f1c0c5e-7d7c-4a5e-9d5b-0a4f3b1c2d3e"

// startWithUsers starts a server with a user and a deleted user.
func startWithUsers(t *testing.T) (*servertest.Server, whose) {
	t.Helper()
	s := servertest.Start(t, servertest.Parallel(),
		servertest.Store(func(store user.Store) user.Store { return failingStore{store} }))
	client := s.GRPC()
	ada, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{
		Username: "ada", Email: "ada@example.com", RequestId: usedID,
	})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "gone", Email: "gone@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	w := whose{ada.GetUser().GetUserId(), gone.GetUser().GetUserId()}
	if _, err := client.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: w.gone}); err != nil {
		t.Fatal(err)
	}
	return s, w
}

// An error is the same over REST and all RPC protocols.
func TestErrorsAreEqualOverAllProtocols(t *testing.T) {
	t.Parallel()
	s, w := startWithUsers(t)
	before, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := w.rows()
	maps.Copy(rows, positionRows(before))
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { row.compare(t, s) })
	}
	if after, err := s.Store().Head(t.Context()); err != nil || after.Position != before.Position {
		t.Errorf("store head = %v, %v, want it unchanged", after, err)
	}
}
