package server_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
)

// WatchUsers sends state, changes and removals over each protocol of RPCs, and resumes.
func TestWatchUsersOverEachProtocol(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, p servertest.Protocol) {
		created, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{
			Username: "ann " + p.Name, Email: fmt.Sprintf("ann%d@example.org", len(p.Name)*7+len(p.Options)),
			Tags: []string{p.Name},
		})
		if err != nil {
			t.Fatal(err)
		}
		id := created.GetUser().GetUserId()
		filter := fmt.Sprintf("tags:%q", p.Name)
		stream, err := client.WatchUsers(t.Context(), &userv1.WatchUsersRequest{Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stream.Close() }()
		if !stream.Receive() || stream.Msg().GetUser().GetUserId() != id {
			t.Fatalf("first message = %v, %v, want user %d", stream.Msg(), stream.Err(), id)
		}
		if !stream.Receive() || !stream.Msg().GetSynced() {
			t.Fatalf("second message = %v, %v, want synced", stream.Msg(), stream.Err())
		}
		synced := stream.Msg()
		// At the head the streams share messages.
		_, err = client.UpdateUserStatus(t.Context(), &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus_USER_STATUS_INACTIVE})
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: id})
		if err != nil {
			t.Fatal(err)
		}
		updated := got.GetUser()
		if !stream.Receive() || !proto.Equal(stream.Msg().GetUser(), updated) || stream.Msg().GetActivityId() != updated.GetLastActivityId() {
			t.Fatalf("third message = %v, %v, want user %v", stream.Msg(), stream.Err(), updated)
		}
		if _, err := client.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id}); err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() || !stream.Msg().GetRemoved() || stream.Msg().GetUserId() != id {
			t.Fatalf("fourth message = %v, %v, want a removal", stream.Msg(), stream.Err())
		}
		resumed, err := client.WatchUsers(t.Context(), &userv1.WatchUsersRequest{
			Filter: filter, AfterActivityId: synced.GetActivityId(), Epoch: synced.GetEpoch(),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resumed.Close() }()
		if !resumed.Receive() || !resumed.Msg().GetRemoved() || resumed.Msg().GetUserId() != id {
			t.Fatalf("first message after the resume = %v, %v, want a removal", resumed.Msg(), resumed.Err())
		}
	})
}

// Each event and line of REST has a message, and an event stream resumes after the id of any event.
func TestWatchUsersOverREST(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for _, name := range []string{"ann", "bob"} {
		if _, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"}); err != nil {
			t.Fatal(err)
		}
	}
	names, position := []string{"ann", "bob"}, int64(2)
	for accept, want := range map[string]string{"application/x-ndjson": "", "text/event-stream": "data: "} {
		line := watchREST(t, s, accept, "")
		for _, name := range names {
			if got := restMessage(t, line, want); got.GetUser().GetUsername() != name {
				t.Errorf("%s: message = %v, want user %s", accept, got, name)
			}
		}
		if got := restMessage(t, line, want); !got.GetSynced() || got.GetActivityId() != position {
			t.Errorf("%s: message = %v, want synced at %d", accept, got, position)
		}
		// At the head the streams share messages.
		created, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "new " + accept, Email: fmt.Sprint(position, "@example.org")})
		if err != nil {
			t.Fatal(err)
		}
		position++
		names = append(names, created.GetUser().GetUsername())
		if got := restMessage(t, line, want); !proto.Equal(got.GetUser(), created.GetUser()) || got.GetActivityId() != position {
			t.Errorf("%s: message = %v, want user %v", accept, got, created.GetUser())
		}
	}

	events := watchREST(t, s, "text/event-stream", "")
	id := ""
	for found := false; !found; {
		id, found = strings.CutPrefix(events(), "id: ")
	}
	resumed := watchREST(t, s, "text/event-stream", id)
	if got := restMessage(t, resumed, "data: "); got.GetUser().GetUsername() != "bob" {
		t.Errorf("first message after %s = %v, want user bob", id, got)
	}
}

// watchREST opens a stream and returns a function that reads a line that is not empty.
func watchREST(t *testing.T, s *servertest.Server, accept, lastEventID string) func() string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/users:watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := s.HTTP(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != accept {
		t.Fatalf("response = %s %v", res.Status, res.Header)
	}
	lines := bufio.NewScanner(res.Body)
	return func() string {
		t.Helper()
		for lines.Scan() {
			if text := lines.Text(); text != "" {
				return text
			}
		}
		t.Fatalf("stream ended: %v", lines.Err())
		return ""
	}
}

// restMessage reads the next line with the prefix as a message.
func restMessage(t *testing.T, line func() string, prefix string) *userv1.WatchUsersResponse {
	t.Helper()
	for {
		text, ok := strings.CutPrefix(line(), prefix)
		if !ok {
			continue
		}
		m := new(userv1.WatchUsersResponse)
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return m
	}
}
