package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
)

// refused is an invalid JSON request over Connect and REST.
type refused struct {
	requests map[string]request
	want     string // in the response
}

func refusedRequests(id int64, pageToken string) map[string]refused {
	const rpc = "/user.v1.UserService/"
	users, ada := "/api/v1/users", fmt.Sprintf("/api/v1/users/%d", id)
	post := func(path, body string) request { return request{method: "POST", path: path, body: body} }
	status := func(members string) map[string]request {
		body := fmt.Sprintf(`{"userId": "%d", %s}`, id, members)
		return map[string]request{
			"RPC":  post(rpc+"UpdateUserStatus", body),
			"REST": {method: "PUT", path: ada + "/status", body: strings.Replace(body, fmt.Sprintf(`"userId": "%d", `, id), "", 1)},
		}
	}
	const active = `"status": "USER_STATUS_ACTIVE", `
	return map[string]refused{
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
			"RPC":  post(rpc+"ListUsers", `{"pageSize": 1, "pageToken": "`+pageToken+`"}`),
			"REST": {method: "GET", path: users + "?pageSize=1&pageToken=" + pageToken},
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
		"unknown number of an enum": {status(`"status": 99`), "status"},
		"unknown name of an enum":   {status(`"status": "PURPLE"`), "status"},
		"last time of all":          {status(active + `"timestamp": "9999-12-31T23:59:59.999999999Z"`), "timestamp"},
		"time after the last":       {status(active + `"timestamp": "10000-01-01T00:00:00Z"`), "imestamp"},
		"time before the first":     {status(active + `"timestamp": "0000-12-31T23:59:59Z"`), "imestamp"},
		"no time":                   {status(active + `"timestamp": "yesterday"`), "imestamp"},
		"nothing":                   {map[string]request{"RPC": post(rpc+"CreateUser", "null"), "REST": post(users, "null")}, ""},
		"deep": {map[string]request{
			"RPC": post(rpc+"CreateUser", strings.Repeat(`{"a":`, 20000)), "REST": post(users, strings.Repeat(`{"a":`, 20000)),
		}, ""},
	}
}

// Invalid JSON requests are rejected with a clear error, and nothing is stored.
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
	for name, test := range refusedRequests(w.ada, page.GetNextPageToken()) {
		for way, r := range test.requests {
			t.Run(name+" by "+way, func(t *testing.T) {
				code, body := r.send(t, s.HTTP(false))
				var response struct{ Code, Message any }
				if err := json.Unmarshal([]byte(body), &response); err != nil || code != http.StatusBadRequest || response.Message == "" {
					t.Fatalf("got %d %s", code, body)
				}
				// REST names the position in an invalid body.
				if !strings.Contains(body, test.want) && !strings.Contains(body, "(line 1:") && !strings.Contains(body, "-bit integer") {
					t.Errorf("response has no %q: %s", test.want, body)
				}
			})
		}
	}
	if after, err := s.Store().Head(t.Context()); err != nil || after.Position != before.Position {
		t.Errorf("store head = %v, %v, want it unchanged", after, err)
	}
}

// raw is an encoded message, possibly invalid.
type raw []byte

// rawCodec sends raw messages unchanged, and encodes others as protobuf.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) ([]byte, error) {
	switch m := message.(type) {
	case *raw:
		return *m, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("a %T is no message", message)
}

func (rawCodec) Unmarshal(data []byte, message any) error {
	switch m := message.(type) {
	case *raw:
		*m = slices.Clone(data)
		return nil
	case proto.Message:
		return proto.Unmarshal(data, m)
	}
	return fmt.Errorf("a %T is no message", message)
}

// inProtobuf are the protocols with protobuf bodies.
func inProtobuf() []servertest.Protocol {
	return slices.DeleteFunc(servertest.Protocols(), func(p servertest.Protocol) bool {
		return strings.Contains(p.Name, "JSON") || strings.Contains(p.Name, "GET")
	})
}

// callRaw calls a procedure and returns its error; on a status stream, the error in the response.
func callRaw(ctx context.Context, s *servertest.Server, p servertest.Protocol, name protoreflect.Name, message raw) error {
	method := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods().ByName(name)
	options := append(slices.Clone(p.Options), connect.WithCodec(rawCodec{}))
	c := connect.NewClient[raw, raw](s.HTTP(p.HTTP2), "http://userd.test/user.v1.UserService/"+string(name), options...)
	switch in, out := method.IsStreamingClient(), method.IsStreamingServer(); {
	case in && out:
		stream := c.CallBidiStream(ctx)
		defer func() { _ = stream.CloseResponse() }()
		_ = stream.Send(&message) // Receive returns the error
		_ = stream.CloseRequest()
		response, err := stream.Receive()
		if err != nil {
			return err
		}
		var update userv1.UserStatusUpdate
		return errors.Join(proto.Unmarshal(*response, &update), asError(update.GetFailure()))
	case in:
		stream := c.CallClientStream(ctx)
		_ = stream.Send(&message)
		_, err := stream.CloseAndReceive()
		return err
	case out:
		stream, err := c.CallServerStream(ctx, connect.NewRequest(&message))
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		stream.Receive()
		return stream.Err()
	}
	_, err := c.CallUnary(ctx, connect.NewRequest(&message))
	return err
}

// hostile is an invalid message.
type hostile struct {
	to      protoreflect.Name
	message raw
	field   string // in the error; empty: the message cannot be decoded
}

func hostileMessages(t *testing.T, id int64) map[string]hostile {
	t.Helper()
	pack := func(m proto.Message) raw {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	// text returns a message with a string field that is not UTF-8.
	text := func(field protowire.Number) raw {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), []byte("ev\xff"))
	}
	within := func(field protowire.Number, inner raw) raw {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), inner)
	}
	const active, unknown = userv1.UserStatus_USER_STATUS_ACTIVE, userv1.UserStatus(99)
	all := map[string]hostile{
		"text of a call":                 {"CreateUser", text(1), ""},
		"text of a tag":                  {"CreateUser", text(3), ""},
		"text of a query":                {"ListUsers", text(3), ""},
		"text within a message":          {"UpdateUser", within(2, text(2)), ""},
		"text in a client stream":        {"BatchCreateUsers", within(1, text(1)), ""},
		"text for a server stream":       {"StreamUserActivities", text(7), ""},
		"status of a call":               {"UpdateUserStatus", pack(&userv1.UpdateUserStatusRequest{UserId: id, Status: unknown}), "status"},
		"status of a user":               {"UpdateUser", pack(&userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Status: unknown}}), "user.status"},
		"status of a stream":             {"SyncUserStatus", pack(&userv1.UserStatusUpdate{UserId: id, Status: unknown}), "status"},
		"negative status":                {"UpdateUserStatus", pack(&userv1.UpdateUserStatusRequest{UserId: id, Status: -1}), "status"},
		"message that breaks off":        {"CreateUser", raw{0x0a, 0x7f, 'a'}, ""},
		"group that is never closed":     {"CreateUser", raw{0x0b}, ""},
		"number that is longer than any": {"GetUser", append(raw{0x08}, bytes.Repeat([]byte{0xff}, 11)...), ""},
	}
	for name, at := range map[string]*timestamppb.Timestamp{
		"last second of all": {Seconds: math.MaxInt64}, "first second of all": {Seconds: math.MinInt64},
		"second after the last": {Seconds: 253402300800}, "second before the first": {Seconds: -62135596801},
		"negative nanos": {Seconds: 1, Nanos: -1}, "a second of nanos": {Seconds: 1, Nanos: 1_000_000_000},
		"most nanos": {Seconds: math.MaxInt64, Nanos: math.MaxInt32}, "least nanos": {Nanos: math.MinInt32},
	} {
		all["since: "+name] = hostile{"StreamUserActivities", pack(&userv1.StreamUserActivitiesRequest{Since: at}), "since"}
		all["call: "+name] = hostile{"UpdateUserStatus", pack(&userv1.UpdateUserStatusRequest{UserId: id, Status: active, Timestamp: at}), "timestamp"}
		all["stream: "+name] = hostile{"SyncUserStatus", pack(&userv1.UserStatusUpdate{UserId: id, Status: active, Timestamp: at}), "timestamp"}
	}
	return all
}

// Invalid protobuf messages are rejected, including those that JSON cannot express.
func TestHostileProtobuf(t *testing.T) {
	t.Parallel()
	s, w := startWithUsers(t)
	before, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range hostileMessages(t, w.ada) {
		t.Run(name, func(t *testing.T) {
			for _, p := range inProtobuf() {
				if test.to == "SyncUserStatus" && !p.HTTP2 {
					continue
				}
				got := contentFromRPC(t, callRaw(t.Context(), s, p, test.to, test.message))
				if got.Code != connect.CodeInvalidArgument || got.Message == "" {
					t.Errorf("%s: got %+v", p.Name, got)
				}
				if test.field != "" && (got.Reason != "INVALID_FIELD" || len(got.Fields) != 1 || !strings.HasPrefix(got.Fields[0], test.field+" ")) {
					t.Errorf("%s: got %+v, want field %s", p.Name, got, test.field)
				}
			}
		})
	}
	if after, err := s.Store().Head(t.Context()); err != nil || after.Position != before.Position {
		t.Errorf("store head = %v, %v, want it unchanged", after, err)
	}
}

// The minimum and maximum timestamps are valid values of since.
func TestSinceExtremeTimes(t *testing.T) {
	t.Parallel()
	s, _ := startWithUsers(t)
	head, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for text, test := range map[string]struct {
		since *timestamppb.Timestamp
		rows  int
	}{
		"0001-01-01T00:00:00Z":           {&timestamppb.Timestamp{Seconds: -62135596800}, int(head.Position)},
		"9999-12-31T23:59:59.999999999Z": {&timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999_999_999}, 0},
	} {
		t.Run(text, func(t *testing.T) {
			s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
				stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{Since: test.since, ReplayOnly: true})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = stream.Close() }()
				rows := 0
				for stream.Receive() {
					rows++
				}
				if stream.Err() != nil || rows != test.rows {
					t.Errorf("got %d rows, %v, want %d", rows, stream.Err(), test.rows)
				}
			})
			r := request{
				method: "GET", path: "/api/v1/users/0/activities?replayOnly=true&since=" + text,
				header: http.Header{"Accept": {"application/x-ndjson"}},
			}
			if code, body := r.send(t, s.HTTP(false)); code != http.StatusOK || strings.Count(body, "activityId") != test.rows {
				t.Errorf("REST: got %d %s, want %d rows", code, body, test.rows)
			}
		})
	}
}
