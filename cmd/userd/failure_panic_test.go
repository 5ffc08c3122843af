package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// shaken is a program with a planted panic, and those who must not notice.
type shaken struct {
	process *process
	client  userv1connect.UserServiceClient
	id      int64
	live    *connect.ServerStreamForClient[userv1.UserActivity]
}

func startShaken(ctx context.Context, t *testing.T, fault string) *shaken {
	t.Helper()
	s := &shaken{process: program{dir: t.TempDir(), fault: fault}.start(t)}
	s.client = s.process.client(t, 1<<20)
	s.id = createOne(ctx, t, s.process)
	var err error
	if s.live, err = s.client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true}); err != nil {
		t.Fatal(err)
	}
	return s
}

// mustBeIncident fails unless the caller is told of an incident, and of no more, that
// the log tells of with the stack and the file.
func (s *shaken) mustBeIncident(t *testing.T, file string, err error) {
	t.Helper()
	info := mustBe(t, err, connect.CodeInternal, "INTERNAL")
	if strings.Contains(err.Error(), "planted") {
		t.Errorf("the caller is told what went wrong inside: %v", err)
	}
	incident := info.GetMetadata()["incident"]
	if incident == "" {
		t.Fatal("no incident")
	}
	s.process.output.await(t, incident, "planted: ", "debug.Stack", file)
}

// mustGoOn fails unless the others, those on the same connection too, have not noticed.
func (s *shaken) mustGoOn(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: s.id}); err != nil {
		t.Error(err)
	}
	if err := record(ctx, s.client, s.id, "test.noted", "after the panic"); err != nil {
		t.Error(err)
	}
	if !s.live.Receive() || s.live.Msg().GetAction() != "test.noted" {
		t.Errorf("the live stream: %v, %v", s.live.Msg(), s.live.Err())
	}
}

// A handler that panics fails for its caller alone, who is told where the log has
// it, whichever protocol and kind of call it is.
func TestPanicInHandler(t *testing.T) {
	ctx := within(t, time.Minute)
	s := startShaken(ctx, t, "panic-in-handler")
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
			if err := stream.Send(&userv1.UpdateUserRequest{UserId: 1}); err != nil {
				return err
			}
			_, err = stream.CloseAndReceive()
			return err
		}},
		// It works on two goroutines. This is the one that is not the call's own.
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
			s.mustGoOn(ctx, t)
		})
	}
}

// Nor does a panic elsewhere do more harm: in what turns REST into calls, and on the
// goroutine that turns the rows of a stream into events, where nobody further out would
// catch it.
func TestPanicOutsideHandlers(t *testing.T) {
	ctx := within(t, time.Minute)
	s := startShaken(ctx, t, "panic-in-rest")
	path := "/api/v1/users/" + strconv.FormatInt(s.id, 10)
	t.Run("REST", func(t *testing.T) {
		s.mustBeIncident(t, "unary.go", s.get(ctx, path, "application/json"))
		s.mustGoOn(ctx, t)
	})
	t.Run("events", func(t *testing.T) {
		s.mustBeIncident(t, "activities.go", s.get(ctx, path+"/activities", "text/event-stream"))
		s.mustGoOn(ctx, t)
	})
}

// get makes a REST request and returns the error that it is answered with, as the
// clients of RPCs give one.
func (s *shaken) get(ctx context.Context, path, accept string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.process.url()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return statusError(string(body))
}

// statusError finds a google.rpc.Status in JSON, be it an event's, and gives it as an
// error.
func statusError(body string) error {
	at := strings.Index(body, `{"code":`)
	if at < 0 {
		return fmt.Errorf("no status in %q", body)
	}
	var text json.RawMessage // the first value; there may be more around it
	if err := json.NewDecoder(strings.NewReader(body[at:])).Decode(&text); err != nil {
		return err
	}
	told := &status.Status{}
	if err := protojson.Unmarshal(text, told); err != nil {
		return err
	}
	answer := connect.NewError(connect.Code(told.GetCode()), errors.New(told.GetMessage()))
	for _, packed := range told.GetDetails() {
		message, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		detail, err := connect.NewErrorDetail(message)
		if err != nil {
			return err
		}
		answer.AddDetail(detail)
	}
	return answer
}
