package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
)

// secrets are the data of the test's user that require users.read.
var secrets = []string{"hidden-name", "hidden-mail", "hidden-tag", "hidden-key", "hidden-value", "SUSPENDED", "changed_fields", "holder_deleted"}

// makeSecret creates the user, and a deleted one.
func (g guarded) makeSecret(t *testing.T) (id int64) {
	t.Helper()
	root := g.grpc(g.token(t, "root", time.Hour, auth.AllPermissions().List()...))
	for _, name := range []string{"hidden-name", "deleted-name"} {
		created, err := root.CreateUser(t.Context(), &userv1.CreateUserRequest{
			Username: name, Email: strings.Replace(name, "name", "mail", 1) + "@example.org",
			Tags: []string{"hidden-tag"}, Metadata: map[string]string{"hidden-key": "hidden-value"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if name == "deleted-name" {
			if _, err := root.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: created.GetUser().GetUserId()}); err != nil {
				t.Fatal(err)
			}
			break
		}
		id = created.GetUser().GetUserId()
	}
	for _, status := range []userv1.UserStatus{userv1.UserStatus_USER_STATUS_INACTIVE, userv1.UserStatus_USER_STATUS_SUSPENDED} {
		_, err := root.UpdateUserStatus(t.Context(), &userv1.UpdateUserStatusRequest{UserId: id, Status: status})
		if err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// probe is a call that could reveal data of a user.
type probe struct {
	name   string
	needs  auth.Permission // all that the caller has
	shows  auth.Permission // with it too, the response has a secret; empty: never
	invoke func(context.Context, userv1connect.UserServiceClient, int64) (proto.Message, error)
}

func takenItem(change func(*userv1.CreateUserRequest)) *userv1.CreateUserRequest {
	item := &userv1.CreateUserRequest{Username: "other", Email: "HIDDEN-mail@example.org"}
	change(item)
	return item
}

var longAgo = timestamppb.New(time.Unix(1, 0))

const (
	oldEtag  = "1-abc"
	repeatID = "6f2b1a1e-3a0a-4a54-9b51-3ad6c1f2a111"
)

func probes() []probe {
	plain := func(*userv1.CreateUserRequest) {}
	creates := func(policy userv1.ConflictPolicy, item *userv1.CreateUserRequest) func(context.Context, userv1connect.UserServiceClient, int64) (proto.Message, error) {
		return func(ctx context.Context, c userv1connect.UserServiceClient, _ int64) (proto.Message, error) {
			return c.CreateUsers(ctx, &userv1.CreateUsersRequest{ConflictPolicy: policy, Requests: []*userv1.CreateUserRequest{item}})
		}
	}
	updates := func(req *userv1.UpdateUserRequest, atomic bool) func(context.Context, userv1connect.UserServiceClient, int64) (proto.Message, error) {
		return func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			item := proto.CloneOf(req)
			item.UserId = id
			return c.UpdateUsers(ctx, &userv1.UpdateUsersRequest{Atomic: atomic, Requests: []*userv1.UpdateUserRequest{item}})
		}
	}
	skip, update := userv1.ConflictPolicy_CONFLICT_POLICY_SKIP, userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE
	empty := &userv1.UpdateUserRequest{User: &userv1.User{}}
	stale := &userv1.UpdateUserRequest{User: &userv1.User{}, Etag: oldEtag}
	return []probe{
		{"update of nothing", auth.UsersWrite, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			return c.UpdateUser(ctx, &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}})
		}},
		{"update of nothing, repeated", auth.UsersWrite, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			req := &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}, RequestId: repeatID}
			if _, err := c.UpdateUser(ctx, req); err != nil {
				return nil, err
			}
			return c.UpdateUser(ctx, req)
		}},
		{"update with an old etag", auth.UsersWrite, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			return c.UpdateUser(ctx, &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}, Etag: oldEtag})
		}},
		{"updates of nothing", auth.UsersWrite, auth.UsersRead, updates(empty, false)},
		{"updates of nothing, atomic", auth.UsersWrite, auth.UsersRead, updates(empty, true)},
		{"updates with an old etag", auth.UsersWrite, auth.UsersRead, updates(stale, false)},
		{"updates with an old etag, atomic", auth.UsersWrite, auth.UsersRead, updates(stale, true)},
		{"creates that skip", auth.UsersWrite, auth.UsersRead, creates(skip, takenItem(plain))},
		{"creates that skip, validated", auth.UsersWrite, auth.UsersRead,
			creates(skip, takenItem(func(r *userv1.CreateUserRequest) { r.ValidateOnly = true }))},
		{"creates that fail", auth.UsersWrite, auth.UsersRead, creates(0, takenItem(func(r *userv1.CreateUserRequest) { r.Email = "deleted-mail@example.org" }))},
		{"creates that update, validated", auth.UsersWrite, auth.UsersRead,
			creates(update, takenItem(func(r *userv1.CreateUserRequest) { r.ValidateOnly = true }))},
		{"create of a deleted user's", auth.UsersWrite, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, _ int64) (proto.Message, error) {
			return c.CreateUser(ctx, &userv1.CreateUserRequest{Username: "deleted-name", Email: "new@example.org"})
		}},
		{"import that skips", auth.UsersWrite, "", func(ctx context.Context, c userv1connect.UserServiceClient, _ int64) (proto.Message, error) {
			return importOne(ctx, c, &userv1.BatchCreateUsersRequest{User: takenItem(plain), ConflictPolicy: skip})
		}},
		{"import that fails", auth.UsersWrite, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, _ int64) (proto.Message, error) {
			return importOne(ctx, c, &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Username: "deleted-name", Email: "new@example.org"}})
		}},
		{"stream of updates with an old etag", auth.UsersWrite, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			stream, err := c.BatchUpdateUsers(ctx)
			if err != nil {
				return nil, err
			}
			if err := stream.Send(&userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}, Etag: oldEtag}); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return stream.CloseAndReceive()
		}},
		{"deletion with an old etag", auth.UsersDelete, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			return c.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: id, Etag: oldEtag})
		}},
		{"deletion", auth.UsersDelete, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			res, err := c.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: id})
			_, undo := c.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: id})
			return res, errors.Join(err, undo)
		}},
		{"undeletion", auth.UsersDelete, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			_, err := c.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: id})
			res, undo := c.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: id})
			return res, errors.Join(err, undo)
		}},
		{"status that is too old", auth.StatusWrite, auth.StatusRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			return c.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus_USER_STATUS_ACTIVE, Timestamp: longAgo})
		}},
		{"activities", auth.ActivitiesRead, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			return c.ListUserActivities(ctx, &userv1.ListUserActivitiesRequest{UserId: id, Actions: []string{"user.created"}})
		}},
		{"stream of activities", auth.ActivitiesRead, auth.UsersRead, func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			stream, err := c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: id, ReplayOnly: true, Actions: []string{"user.created"}})
			if err != nil {
				return nil, err
			}
			all := &userv1.ListUserActivitiesResponse{}
			for stream.Receive() {
				all.Activities = append(all.Activities, proto.CloneOf(stream.Msg()))
			}
			return all, errors.Join(stream.Err(), stream.Close())
		}},
		{"record", auth.ActivitiesRecord, "", func(ctx context.Context, c userv1connect.UserServiceClient, id int64) (proto.Message, error) {
			return c.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{UserId: id, Action: "app.seen"})
		}},
	}
}

func importOne(ctx context.Context, c userv1connect.UserServiceClient, item *userv1.BatchCreateUsersRequest) (proto.Message, error) {
	stream, err := c.BatchCreateUsers(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(item); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndReceive()
}

// No call reveals data of a user for which the caller lacks the permission, over all protocols.
func TestCallsRevealOnlyPermittedData(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	id := g.makeSecret(t)
	for _, p := range servertest.Protocols() {
		for _, probe := range probes() {
			call := func(permissions ...auth.Permission) string {
				token := g.token(t, "prober "+p.Name, time.Hour, permissions...)
				client := userv1connect.NewUserServiceClient(g.as(p.HTTP2, token), "http://userd.test", p.Options...)
				message, err := probe.invoke(t.Context(), client, id)
				return wholeResponse(t, message, err)
			}
			if got := call(probe.needs); revealsSecret(got) {
				t.Errorf("%s with %s over %s: %s", probe.name, probe.needs, p.Name, got)
			}
			if probe.shows == "" {
				continue
			}
			if got := call(probe.needs, probe.shows); !revealsSecret(got) {
				t.Errorf("%s with %s too over %s reveals nothing, want data: %s", probe.name, probe.shows, p.Name, got)
			}
		}
	}
}

func revealsSecret(text string) bool {
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// wholeResponse returns the content of a response or an error, including details and headers.
func wholeResponse(t *testing.T, message proto.Message, err error) string {
	t.Helper()
	var text strings.Builder
	if message != nil && message.ProtoReflect().IsValid() {
		encoded, err := protojson.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(encoded)
	}
	if failure := (*connect.Error)(nil); errors.As(err, &failure) {
		fmt.Fprint(&text, failure.Code(), failure.Message(), failure.Meta())
		for _, detail := range failure.Details() {
			value, err := detail.Value()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(&text, value)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// The same over REST.
func TestRoutesRevealOnlyPermittedData(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	id := g.makeSecret(t)
	user := fmt.Sprintf("/api/v1/users/%d", id)
	taken := `"username":"other","email":"hidden-MAIL@example.org"`
	for _, row := range []struct {
		method, path, body, accept string
		ifMatch                    string
		needs, shows               auth.Permission
	}{
		{"PATCH", user, `{}`, "", "", auth.UsersWrite, auth.UsersRead},
		{"PATCH", user, `{}`, "", `"` + oldEtag + `"`, auth.UsersWrite, auth.UsersRead},
		{"POST", "/api/v1/users:batchCreate", `{"requests":[{` + taken + `}],"conflictPolicy":"CONFLICT_POLICY_SKIP"}`, "", "", auth.UsersWrite, auth.UsersRead},
		{"POST", "/api/v1/users", `{"username":"deleted-name","email":"new@example.org"}`, "", "", auth.UsersWrite, auth.UsersRead},
		{"POST", "/api/v1/users:batchUpdate", fmt.Sprintf(`{"requests":[{"userId":"%d","user":{}}]}`, id), "", "", auth.UsersWrite, auth.UsersRead},
		{"PUT", user + "/status", `{"status":"USER_STATUS_ACTIVE","timestamp":"1970-01-01T00:00:01Z"}`, "", "", auth.StatusWrite, auth.StatusRead},
		{"GET", user + "/activities?actions=user.created", "", "application/json", "", auth.ActivitiesRead, auth.UsersRead},
		{"GET", user + "/activities?replay_only=true&actions=user.created", "", "text/event-stream", "", auth.ActivitiesRead, auth.UsersRead},
		{"GET", user + "/activities?replay_only=true&actions=user.created", "", "application/x-ndjson", "", auth.ActivitiesRead, auth.UsersRead},
	} {
		call := func(permissions ...auth.Permission) string {
			request, err := http.NewRequestWithContext(t.Context(), row.method, "http://userd.test"+row.path, strings.NewReader(row.body))
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{"Content-Type": "application/json", "Accept": row.accept, "If-Match": row.ifMatch} {
				if value != "" {
					request.Header.Set(name, value)
				}
			}
			res, err := g.as(false, g.token(t, "prober", time.Hour, permissions...)).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(res.StatusCode, res.Header, string(body))
		}
		name := row.method + " " + row.path + " " + row.accept + row.ifMatch
		if got := call(row.needs); revealsSecret(got) {
			t.Errorf("%s with %s: %s", name, row.needs, got)
		}
		if got := call(row.needs, row.shows); !revealsSecret(got) {
			t.Errorf("%s with %s too reveals nothing, want data: %s", name, row.shows, got)
		}
	}
}
