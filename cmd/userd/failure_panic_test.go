package main_test

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
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// panicTest is a program with an injected panic, and other calls that must not be affected.
type panicTest struct {
	process *process
	client  userv1connect.UserServiceClient
	id      int64
	live    *connect.ServerStreamForClient[userv1.UserActivity]
}

func startPanicTest(ctx context.Context, t *testing.T, fault string) *panicTest {
	t.Helper()
	s := &panicTest{process: program{dir: t.TempDir(), fault: fault}.start(t)}
	s.client = s.process.client(t, 1<<20)
	s.id = createOne(ctx, t, s.process)
	var err error
	if s.live, err = s.client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true}); err != nil {
		t.Fatal(err)
	}
	return s
}

// mustBeIncident fails the test unless err has an incident and no internals, and the log has
// the incident with the stack.
func (s *panicTest) mustBeIncident(t *testing.T, file string, err error) {
	t.Helper()
	info := mustBe(t, err, connect.CodeInternal, "INTERNAL")
	if strings.Contains(err.Error(), "planted") {
		t.Errorf("error reveals internals: %v", err)
	}
	incident := info.GetMetadata()["incident"]
	if incident == "" {
		t.Fatal("error has no incident")
	}
	s.process.output.await(t, incident, "planted: ", "debug.Stack", file)
}

// mustBeUnaffected checks that other calls and streams on the connection succeed.
func (s *panicTest) mustBeUnaffected(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: s.id}); err != nil {
		t.Error(err)
	}
	if err := record(ctx, s.client, s.id, "test.noted", "after the panic"); err != nil {
		t.Error(err)
	}
	if !s.live.Receive() || s.live.Msg().GetAction() != "test.noted" {
		t.Errorf("live stream: message %v, error %v", s.live.Msg(), s.live.Err())
	}
}

// A panic in a handler fails that call only, with an incident, for each kind of call.
func TestPanicInHandler(t *testing.T) {
	ctx := within(t, hangTimeout)
	s := startPanicTest(ctx, t, "panic-in-handler")
	for _, c := range []struct {
		kind, file string
		call       func() error
	}{
		{"unary", "get_user.go", func() error {
			_, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: 1})
			return err
		}},
		{"server stream", "stream_user_activities.go", func() error {
			stream, err := s.client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: 1})
			if err == nil && !stream.Receive() {
				err = stream.Err()
			}
			return err
		}},
		{"client stream", "batch_update_users.go", func() error {
			stream, err := s.client.BatchUpdateUsers(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Tags: []string{"a"}}}); err != nil {
				return err
			}
			_, err = stream.CloseAndReceive()
			return err
		}},
		// Panics on the second goroutine of the handler.
		{"bidi stream", "sync_user_status.go", func() error {
			stream, err := s.client.SyncUserStatus(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&userv1.UserStatusUpdate{UserId: 1}); err != nil {
				return err
			}
			_, err = stream.Receive()
			return err
		}},
		{"REST", "get_user.go", func() error { return s.get(ctx, "/api/v1/users/1", "application/json") }},
		{"events", "stream_user_activities.go", func() error {
			return s.get(ctx, "/api/v1/users/1/activities", "text/event-stream")
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			s.mustBeIncident(t, c.file, c.call())
			s.mustBeUnaffected(ctx, t)
		})
	}
}

// get makes a REST request and returns the error in the response as a Connect error.
func (s *panicTest) get(ctx context.Context, path, accept string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.process.url()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return statusError(string(body))
}

// statusError converts the google.rpc.Status in a JSON or SSE body to a Connect error.
func statusError(body string) error {
	at := strings.Index(body, `{"code":`)
	if at < 0 {
		return fmt.Errorf("no google.rpc.Status in %q", body)
	}
	var text json.RawMessage // the first JSON value
	if err := json.NewDecoder(strings.NewReader(body[at:])).Decode(&text); err != nil {
		return err
	}
	s := &status.Status{}
	if err := protojson.Unmarshal(text, s); err != nil {
		return err
	}
	failure := connect.NewError(connect.Code(s.GetCode()), errors.New(s.GetMessage()))
	for _, packed := range s.GetDetails() {
		message, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		detail, err := connect.NewErrorDetail(message)
		if err != nil {
			return err
		}
		failure.AddDetail(detail)
	}
	return failure
}
