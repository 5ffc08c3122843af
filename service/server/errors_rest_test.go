package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// told is what an error says, whichever protocol it came by.
type told struct {
	Code     connect.Code
	Message  string
	Reason   string
	Metadata map[string]string
	Fields   []string // with their reasons
	Retry    bool
}

func (o *told) add(detail proto.Message) {
	switch d := detail.(type) {
	case *errdetails.ErrorInfo:
		o.Reason, o.Metadata = d.GetReason(), d.GetMetadata()
		delete(o.Metadata, "incident") // one for each failure
	case *errdetails.BadRequest:
		for _, v := range d.GetFieldViolations() {
			o.Fields = append(o.Fields, v.GetField()+" "+v.GetReason()+" "+v.GetDescription())
		}
	case *errdetails.RetryInfo:
		o.Retry = true
	}
}

func toldByRPC(t *testing.T, err error) told {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an answer of the server: %v", err)
	}
	o := told{Code: e.Code(), Message: e.Message()}
	for _, d := range e.Details() {
		value, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		o.add(value)
	}
	return o
}

func toldByREST(t *testing.T, body string) told {
	t.Helper()
	var s status.Status
	if err := protojson.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	o := told{Code: connect.Code(s.GetCode()), Message: s.GetMessage()}
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
type request struct{ method, path, body, minPosition string }

func (r request) send(t *testing.T, s *servertest.Server) (int, string) {
	t.Helper()
	message, err := http.NewRequestWithContext(t.Context(), r.method, "http://userd.test"+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.body != "" {
		message.Header.Set("Content-Type", "application/json")
	}
	if r.minPosition != "" {
		message.Header.Set("Userd-Min-Position", r.minPosition)
	}
	answer, err := s.HTTP(false).Do(message)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// failing is a call that fails, by RPC and by REST.
type failing struct {
	reason user.Reason
	status int // of HTTP
	rpc    func(context.Context, userv1connect.UserServiceClient) error
	rest   request
}

// whose are the users of these tests.
type whose struct{ ada, gone int64 }

func (w whose) rows() map[string]failing {
	type client = userv1connect.UserServiceClient
	get := func(id int64, reason user.Reason, status int) failing {
		return failing{reason, status, func(ctx context.Context, c client) error {
			_, err := c.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
			return err
		}, request{method: "GET", path: fmt.Sprintf("/api/v1/users/%d", id)}}
	}
	create := func(body string, reason user.Reason, status int) failing {
		var message userv1.CreateUserRequest
		if err := protojson.Unmarshal([]byte(body), &message); err != nil {
			panic(err)
		}
		return failing{reason, status, func(ctx context.Context, c client) error {
			_, err := c.CreateUser(ctx, &message)
			return err
		}, request{method: "POST", path: "/api/v1/users", body: body}}
	}
	list := func(message *userv1.ListUsersRequest, query string) failing {
		return failing{user.InvalidField, 400, func(ctx context.Context, c client) error {
			_, err := c.ListUsers(ctx, message)
			return err
		}, request{method: "GET", path: "/api/v1/users?" + query}}
	}
	const eveJSON = `{"email": "eve@example.com"}`
	update := func(id int64, message *userv1.UpdateUserRequest, query string, reason user.Reason, status int) failing {
		message.UserId = id
		return failing{reason, status, func(ctx context.Context, c client) error {
			_, err := c.UpdateUser(ctx, message)
			return err
		}, request{method: "PATCH", path: fmt.Sprintf("/api/v1/users/%d?%s", id, query), body: eveJSON}}
	}
	eve := func() *userv1.User { return &userv1.User{Email: "eve@example.com"} }
	return map[string]failing{
		"no such user":        get(42, user.UserNotFound, 404),
		"store away":          get(9001, user.StoreUnavailable, 503),
		"store full":          get(9002, user.StoreFull, 429),
		"store read only":     get(9003, user.StoreReadOnly, 400),
		"overloaded":          get(9004, user.Overloaded, 503),
		"unexpected":          get(failID, user.InternalFault, 500),
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
		"bad mask": update(w.ada, &userv1.UpdateUserRequest{
			User: eve(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"colour"}},
		}, "updateMask=colour", user.InvalidField, 400),
		"output only in a mask": update(w.ada, &userv1.UpdateUserRequest{
			User: eve(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"version"}},
		}, "updateMask=version", user.InvalidField, 400),
		"deleted":       update(w.gone, &userv1.UpdateUserRequest{User: eve()}, "", user.UserDeleted, 400),
		"etag mismatch": update(w.ada, &userv1.UpdateUserRequest{User: eve(), Etag: "x"}, "etag=x", user.EtagMismatch, 409),
		"not deleted": {user.UserNotDeleted, 400, func(ctx context.Context, c client) error {
			_, err := c.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: w.ada})
			return err
		}, request{method: "POST", path: fmt.Sprintf("/api/v1/users/%d:undelete", w.ada), body: "{}"}},
	}
}

const usedID = "6f1c0c5e-7d7c-4a5e-9d5b-0a4f3b1c2d3e"

// startWithUsers starts a server with one user, and one who is deleted.
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

// An error says the same over REST as over each protocol of RPCs.
func TestErrorsSayTheSameOverREST(t *testing.T) {
	t.Parallel()
	s, w := startWithUsers(t)
	before, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range w.rows() {
		t.Run(name, func(t *testing.T) {
			code, body := row.rest.send(t, s)
			want := toldByREST(t, body)
			if code != row.status || want.Reason != string(row.reason) || want.Message == "" {
				t.Fatalf("REST: got %d %+v, want %d %s", code, want, row.status, row.reason)
			}
			if row.reason == user.InvalidField && len(want.Fields) == 0 {
				t.Errorf("REST names no field: %s", body)
			}
			for _, p := range servertest.Protocols() {
				got := toldByRPC(t, row.rpc(t.Context(), s.Client(p)))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("REST (-) and %s (+) differ:\n%s", p.Name, diff)
				}
			}
		})
	}
	if after, err := s.Store().Head(t.Context()); err != nil || after.Position != before.Position {
		t.Errorf("something was stored: %v, %v", after, err)
	}
}

// What no client of ours would send gets a clear answer, and nothing of it is stored.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	s, w := startWithUsers(t)
	before, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	page, err := s.GRPC().ListUsers(t.Context(), &userv1.ListUsersRequest{PageSize: 1, ShowDeleted: true})
	if err != nil || page.GetNextPageToken() == "" {
		t.Fatalf("got %v, %v", page, err)
	}
	const rpc = "/user.v1.UserService/"
	users, ada := "/api/v1/users", fmt.Sprintf("/api/v1/users/%d", w.ada)
	post := func(path, body string) request { return request{method: "POST", path: path, body: body} }
	status := func(member string) map[string]request {
		body := fmt.Sprintf(`{"userId": "%d", "status": "USER_STATUS_ACTIVE", %s}`, w.ada, member)
		return map[string]request{
			"RPC": post(rpc+"UpdateUserStatus", body), "REST": {method: "PUT", path: ada + "/status", body: strings.Replace(body, fmt.Sprintf(`"userId": "%d", `, w.ada), "", 1)},
		}
	}
	for name, test := range map[string]struct {
		requests map[string]request
		want     string // in the answer
	}{
		"unknown field": {map[string]request{
			"RPC":  post(rpc+"CreateUser", `{"username": "eve", "email": "eve@example.com", "colour": 1}`),
			"REST": post(users, `{"username": "eve", "email": "eve@example.com", "colour": 1}`),
		}, "colour"},
		"unknown member of the query": {map[string]request{"REST": {method: "GET", path: users + "?colour=1"}}, "colour"},
		"text that is no UTF-8": {map[string]request{
			"RPC":  post(rpc+"CreateUser", "{\"username\": \"ev\xff\", \"email\": \"eve@example.com\"}"),
			"REST": post(users, "{\"username\": \"ev\xff\", \"email\": \"eve@example.com\"}"),
		}, "UTF-8"},
		"page token of another query": {map[string]request{
			"RPC":  post(rpc+"ListUsers", `{"pageSize": 1, "pageToken": "`+page.GetNextPageToken()+`"}`),
			"REST": {method: "GET", path: users + "?pageSize=1&pageToken=" + page.GetNextPageToken()},
		}, "page_token"},
		"NaN": {map[string]request{
			"RPC":  post(rpc+"ListUsers", `{"pageSize": NaN}`),
			"text": post(rpc+"ListUsers", `{"pageSize": "NaN"}`),
			"REST": {method: "GET", path: users + "?pageSize=NaN"},
		}, "NaN"},
		"number beyond its type": {map[string]request{
			"RPC":  post(rpc+"ListUsers", `{"pageSize": 1e300}`),
			"REST": {method: "GET", path: users + "?pageSize=99999999999"},
		}, ""},
		"unknown number of an enum": {status(`"status": 99`), ""},
		"unknown name of an enum":   {status(`"requestId": "", "status": "PURPLE"`), ""},
		"last time of all":          {status(`"timestamp": "9999-12-31T23:59:59.999999999Z"`), "timestamp"},
		"time after the last":       {status(`"timestamp": "10000-01-01T00:00:00Z"`), "imestamp"},
		"time before the first":     {status(`"timestamp": "0000-12-31T23:59:59Z"`), "imestamp"},
		"no time":                   {status(`"timestamp": "yesterday"`), "imestamp"},
		"nothing":                   {map[string]request{"RPC": post(rpc+"CreateUser", "null"), "REST": post(users, "null")}, ""},
		"deep": {map[string]request{
			"RPC": post(rpc+"CreateUser", strings.Repeat(`{"a":`, 20000)), "REST": post(users, strings.Repeat(`{"a":`, 20000)),
		}, ""},
	} {
		for way, r := range test.requests {
			t.Run(name+" by "+way, func(t *testing.T) {
				code, body := r.send(t, s)
				var answer struct{ Code, Message any }
				if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusBadRequest || answer.Message == "" {
					t.Fatalf("got %d %s", code, body)
				}
				// REST names the place in a body that is no JSON of the form.
				if !strings.Contains(body, test.want) && !strings.Contains(body, "(line 1:") && !strings.Contains(body, "whole number") {
					t.Errorf("the answer does not say %q: %s", test.want, body)
				}
			})
		}
	}
	if after, err := s.Store().Head(t.Context()); err != nil || after.Position != before.Position {
		t.Errorf("something was stored: %v, %v", after, err)
	}
}
