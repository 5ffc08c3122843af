package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

func wantPermission(t *testing.T, err error, p auth.Permission) {
	t.Helper()
	if got := wantError(t, err, connect.CodePermissionDenied, user.PermissionMissing).GetMetadata()["permission"]; got != string(p) {
		t.Errorf("got %q, want %s", got, p)
	}
}

// The content of a request can require further permissions.
func TestPermissionsOfRequestContent(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	create := g.grpc(g.token(t, "root", time.Hour, auth.UsersWrite))
	created, err := create.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetUser().GetUserId()

	t.Run("whole log", func(t *testing.T) {
		t.Parallel()
		client := g.grpc(g.token(t, "reader", time.Hour, auth.ActivitiesRead))
		for userID, whole := range map[int64]bool{0: true, id: false} {
			stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: userID, ReplayOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			rows := 0
			for stream.Receive() {
				rows++
			}
			if whole {
				wantPermission(t, stream.Err(), auth.ActivitiesReadAll)
			} else if stream.Err() != nil || rows != 1 {
				t.Errorf("a user's own rows: got %d, %v", rows, stream.Err())
			}
			_ = stream.Close()
			_, err = client.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{UserId: userID})
			if whole {
				wantPermission(t, err, auth.ActivitiesReadAll)
			} else if err != nil {
				t.Error(err)
			}
		}
		for _, accept := range []string{"text/event-stream", "application/x-ndjson", "application/json"} {
			response, body := g.rest(t, g.token(t, "reader", time.Hour, auth.ActivitiesRead),
				resource{method: "GET", path: "/api/v1/users/0/activities", accept: accept})
			if response.StatusCode != http.StatusForbidden || !strings.Contains(body, string(auth.ActivitiesReadAll)) {
				t.Errorf("%s: got %d %s", accept, response.StatusCode, body)
			}
		}
	})
	t.Run("deleted users", func(t *testing.T) {
		t.Parallel()
		client := g.grpc(g.token(t, "reader", time.Hour, auth.UsersRead))
		if _, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{}); err != nil {
			t.Error(err)
		}
		_, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{ShowDeleted: true})
		wantPermission(t, err, auth.UsersReadDeleted)
	})
	t.Run("everybody's status", func(t *testing.T) {
		t.Parallel()
		client := g.grpc(g.token(t, "watcher", time.Hour, auth.StatusRead))
		stream, err := client.WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{All: true})
		if err != nil {
			t.Fatal(err)
		}
		if stream.Receive() {
			t.Errorf("got %v", stream.Msg())
		}
		wantPermission(t, stream.Err(), auth.UsersWatchAll)
		_ = stream.Close()
	})
	t.Run("messages of the bidi stream", func(t *testing.T) {
		t.Parallel()
		follow := &userv1.UserStatusUpdate{UserId: id}
		everybody := &userv1.UserStatusUpdate{}
		set := &userv1.UserStatusUpdate{UserId: id, Status: userv1.UserStatus_USER_STATUS_ACTIVE}
		for _, test := range []struct {
			has     []auth.Permission
			send    *userv1.UserStatusUpdate
			missing auth.Permission // empty: allowed
		}{
			{[]auth.Permission{auth.StatusRead}, follow, ""},
			{[]auth.Permission{auth.StatusRead}, set, auth.StatusWrite},
			{[]auth.Permission{auth.StatusRead}, everybody, auth.UsersWatchAll},
			{[]auth.Permission{auth.StatusRead, auth.StatusWrite}, set, ""},
			{[]auth.Permission{auth.StatusRead, auth.StatusWrite}, everybody, auth.UsersWatchAll},
			{[]auth.Permission{auth.StatusRead, auth.UsersWatchAll}, everybody, ""},
		} {
			stream, err := g.grpc(g.token(t, "syncer", time.Hour, test.has...)).SyncUserStatus(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(test.send); err != nil {
				t.Fatal(err)
			}
			response, err := stream.Receive()
			if err != nil {
				t.Fatalf("%v: the stream ended: %v", test, err)
			}
			missing := response.GetFailure().GetMetadata()["permission"]
			if missing != string(test.missing) || (response.GetError() != nil) != (test.missing != "") {
				t.Errorf("%v %v: got %v", test.has, test.send, response)
			}
			if err := stream.CloseRequest(); err != nil {
				t.Error(err)
			}
			_ = stream.CloseResponse()
		}
	})
}

// Streams end with the tokens of their callers, also while they wait for the client. The stream of a valid
// token continues.
func TestStreamsEndWithTokens(t *testing.T) {
	g := startGuarded(t)
	lasting := g.grpc(g.token(t, "long", time.Hour, auth.AllPermissions().List()...))
	others, err := lasting.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = others.Close() }()
	token := g.token(t, "short", 2*time.Second, auth.AllPermissions().List()...)
	client := g.grpc(token)
	rows, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	statuses, err := client.SyncUserStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	updates := g.openUpdates(t, token)
	if err := updates.Send(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Username: "ada"}}); err != nil {
		t.Fatal(err)
	}
	if err := statuses.Send(&userv1.UserStatusUpdate{}); err != nil {
		t.Fatal(err)
	}
	if _, err := statuses.Receive(); err != nil {
		t.Fatal(err)
	}
	opened := time.Now()
	ends := map[string]error{}
	rows.Receive()
	ends["server stream"] = rows.Err()
	_, ends["bidi stream"] = statuses.Receive()
	// The client has not closed its side.
	ends["client stream"] = receiveBeforeClosing(updates)
	if took := time.Since(opened); took > 30*time.Second {
		t.Errorf("streams ended after %v", took)
	}
	if _, err := lasting.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	if !others.Receive() {
		t.Errorf("stream of a valid token ended: %v", others.Err())
	}
	for name, err := range ends {
		t.Run(name, func(t *testing.T) {
			wantError(t, err, connect.CodeUnauthenticated, user.CredentialsExpired)
		})
	}
	_ = rows.Close()
	_ = statuses.CloseRequest()
	_ = statuses.CloseResponse()
}

// openUpdates opens a client stream.
func (g guarded) openUpdates(t *testing.T, token string) *connect.ClientStreamForClient[userv1.UpdateUserRequest, userv1.BatchUpdateUsersResponse] {
	t.Helper()
	return connect.NewClient[userv1.UpdateUserRequest, userv1.BatchUpdateUsersResponse](g.as(true, token),
		"http://userd.test"+userv1connect.UserServiceBatchUpdateUsersProcedure, connect.WithGRPC()).CallClientStream(t.Context())
}

// receiveBeforeClosing receives the response without closing the client's side.
func receiveBeforeClosing(stream *connect.ClientStreamForClient[userv1.UpdateUserRequest, userv1.BatchUpdateUsersResponse]) error {
	conn, err := stream.Conn()
	if err != nil {
		return err
	}
	err = conn.Receive(new(userv1.BatchUpdateUsersResponse))
	_ = conn.CloseRequest()
	_ = conn.CloseResponse()
	return err
}
