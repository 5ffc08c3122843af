package server_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// brokenStore returns invalid errors.
type brokenStore struct{ user.Store }

const panicID, failID = 777, 778

func (s brokenStore) Get(ctx context.Context, id int64) (*user.User, error) {
	switch id {
	case panicID:
		panic("secret of a panic")
	case failID:
		return nil, errors.New("secret of a store")
	}
	return s.Store.Get(ctx, id)
}

func TestErrorsOverEveryProtocol(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := servertest.Start(t, servertest.Parallel(),
		servertest.Log(slog.NewTextHandler(&log, nil)),
		servertest.Store(func(store user.Store) user.Store { return brokenStore{store} }))

	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		t.Run("not found", func(t *testing.T) {
			_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42})
			info := wantError(t, err, connect.CodeNotFound, user.UserNotFound)
			if info.GetMetadata()["user_id"] != "42" {
				t.Errorf("got metadata %v", info.GetMetadata())
			}
			if position := metaOf(t, err, "Userd-Position"); len(position) != 1 || !strings.Contains(position[0], ":") {
				t.Errorf("got positions %q", position)
			}
		})
		t.Run("rule broken", func(t *testing.T) {
			_, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{
				Username: "ada", Email: "ada@example.com", Tags: []string{"a", "b", ""},
			})
			wantError(t, err, connect.CodeInvalidArgument, user.InvalidField)
			bad := detail[*errdetails.BadRequest](t, err).GetFieldViolations()
			if len(bad) != 1 || bad[0].GetField() != "tags[2]" || bad[0].GetReason() != "string.min_len" || bad[0].GetDescription() == "" {
				t.Errorf("got violations %v", bad)
			}
		})
		for name, id := range map[string]int64{"unexpected failure": failID, "panic": panicID} {
			t.Run(name, func(t *testing.T) {
				_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: id})
				incident := wantError(t, err, connect.CodeInternal, user.InternalError).GetMetadata()["incident"]
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("error reveals internal details: %v", err)
				}
				line, _ := log.lineWith(incident)
				if incident == "" || !strings.Contains(line, "secret") {
					t.Errorf("the log has no line on incident %q", incident)
				}
				if name == "panic" && !strings.Contains(line, "brokenStore.Get") {
					t.Errorf("the log has no stack: %s", line)
				}
			})
		}
		t.Run("stream", func(t *testing.T) {
			stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: 42})
			if err != nil {
				t.Fatal(err)
			}
			if stream.Receive() {
				t.Errorf("got a row: %v", stream.Msg())
			}
			wantError(t, stream.Err(), connect.CodeNotFound, user.UserNotFound)
			if position := stream.ResponseHeader().Values("Userd-Position"); len(position) != 1 {
				t.Errorf("got positions %q", position)
			}
			_ = stream.Close()
		})
		t.Run("rule broken in a stream", func(t *testing.T) {
			stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: -1})
			if err != nil {
				t.Fatal(err)
			}
			if stream.Receive() {
				t.Errorf("got a row: %v", stream.Msg())
			}
			wantError(t, stream.Err(), connect.CodeInvalidArgument, user.InvalidField)
			_ = stream.Close()
		})
	})
}

func TestUnknownJSONFieldIsRejected(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for _, contentType := range []string{"application/json", "application/json; charset=utf-8"} {
		status, body := post(t, s, "/user.v1.UserService/ListUsers", contentType, strings.NewReader(`{"page_sise": 3}`))
		if status != 400 || !strings.Contains(body, `page_sise: unknown field`) || strings.Contains(body, "userv1") {
			t.Errorf("%s: got %d %s", contentType, status, body)
		}
	}
}

// wantError checks code and reason of an error, and returns its ErrorInfo.
func wantError(t *testing.T, err error, code connect.Code, reason user.Reason) *errdetails.ErrorInfo {
	t.Helper()
	if connect.CodeOf(err) != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	info := detail[*errdetails.ErrorInfo](t, err)
	if info.GetDomain() != "user.v1" || info.GetReason() != string(reason) {
		t.Fatalf("got %v of %v, want reason %s", info, err, reason)
	}
	return info
}

func detail[T proto.Message](t *testing.T, err error) T {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an error of the server: %v", err)
	}
	for _, d := range e.Details() {
		if value, err := d.Value(); err == nil {
			if m, ok := value.(T); ok {
				return m
			}
		}
	}
	t.Fatalf("%v has no such detail among %d", err, len(e.Details()))
	return *new(T)
}

func metaOf(t *testing.T, err error, key string) []string {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an error of the server: %v", err)
	}
	return e.Meta().Values(key)
}
