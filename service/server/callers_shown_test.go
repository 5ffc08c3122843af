package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
)

// secrets are the data of the test's user that require users.read.
var secrets = []string{"hidden-name", "hidden-mail", "hidden-tag", "hidden-key", "hidden-value", "SUSPENDED", "changed_fields", "holder_deleted"}

// makeSecret creates the user, with rows 1, 4 and 5 of the log, and a deleted one.
func (g guarded) makeSecret(t *testing.T) (id, deleted int64) {
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
			deleted = created.GetUser().GetUserId()
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
	return id, deleted
}

// dialect is a protocol with a client for each token.
type dialect struct {
	name   string
	bidi   bool
	client func(token string) api
}

// dialects returns the protocols of servertest, and grpc-web-text.
func (g guarded) dialects() []dialect {
	var all []dialect
	for _, p := range servertest.Protocols() {
		all = append(all, dialect{p.Name, p.HTTP2, func(token string) api {
			return userv1connect.NewUserServiceClient(g.as(p.HTTP2, token), "http://userd.test", p.Options...)
		}})
	}
	return append(all, dialect{"gRPC-Web in text form", false, func(token string) api {
		client := g.as(false, token)
		client.Transport = webText{client.Transport}
		return userv1connect.NewUserServiceClient(client, "http://userd.test", connect.WithGRPCWeb())
	}})
}

// Each call with each single permission, with those it needs, and with all but one, over all protocols: it is rejected if the
// caller lacks a permission, in the same way for existing and deleted users, and reveals only what the permissions cover.
func TestCallsRevealOnlyPermittedData(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	id, deleted := g.makeSecret(t)
	tokens := make(map[auth.Permissions]string)
	token := func(permissions auth.Permissions) string {
		if tokens[permissions] == "" {
			tokens[permissions] = g.token(t, "prober", time.Hour, permissions.List()...)
		}
		return tokens[permissions]
	}
	for i, d := range g.dialects() {
		for j, probe := range probes() {
			if probe.method == "SyncUserStatus" && !d.bidi {
				continue
			}
			needs := probe.needs
			if needs == nil {
				needs = needed[probe.method]
			}
			enough := auth.PermissionsOf(needs...)
			call := func(permissions auth.Permissions, id int64) string {
				return shown(t, probe, d.client(token(permissions)), id)
			}
			// With more permissions first: a repeated request has the stored result of this one.
			if got := call(enough|auth.PermissionsOf(probe.shows), id); probe.shows != "" && !revealsSecret(got) {
				t.Errorf("%s with %s too over %s reveals nothing, want data: %s", probe.name, probe.shows, d.name, got)
			}
			for _, permissions := range []auth.Permissions{enough, auth.AllPermissions().Without(probe.shows)} {
				if got := call(permissions, id); !enough.Has(probe.shows) && revealsSecret(got) {
					t.Errorf("%s with %s over %s: %s", probe.name, permissions.List(), d.name, got)
				}
			}
			for k, p := range auth.AllPermissions().List() {
				// A third of the combinations: each permission with each call, and with each protocol.
				if enough.Without(p) == 0 || (i+j+k)%3 != 0 {
					continue
				}
				if got := call(auth.PermissionsOf(p), id); !strings.Contains(got, "permission required: ") || revealsSecret(got) {
					t.Errorf("%s with %s over %s: got %s, want a missing permission", probe.name, p, d.name, got)
				}
			}
			for _, need := range needs {
				others := auth.AllPermissions().Without(need)
				got, other := call(others, id), call(others, deleted)
				if want := "permission required: " + string(need); !strings.Contains(got, want) || other != got {
					t.Errorf("%s without %s over %s: got %s\nand %s, want %q twice", probe.name, need, d.name, got, other, want)
				}
			}
		}
	}
}

func TestEachMethodHasAProbe(t *testing.T) {
	all := probes()
	for _, method := range methods() {
		if !slices.ContainsFunc(all, func(p probe) bool { return p.method == method.Name() }) {
			t.Errorf("%s: not in probes", method.Name())
		}
	}
}

// shown makes a call and returns the response without its date.
func shown(t *testing.T, probe probe, client api, id int64) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	message, err := probe.invoke(ctx, client, id)
	if failure := (*connect.Error)(nil); errors.As(err, &failure) {
		failure.Meta().Del("Date")
	}
	return wholeResponse(t, message, err)
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
	id, _ := g.makeSecret(t)
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

// Each route with each single permission: the rejection is the same for deleted and missing users.
func TestRoutesRejectWithoutRevealing(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	_, deleted := g.makeSecret(t)
	for _, route := range resources(t) {
		for _, p := range auth.AllPermissions().Without(route.needs).List() {
			token := g.token(t, "prober", time.Hour, p)
			call := func(route resource) string {
				response, body := g.rest(t, token, route)
				response.Header.Del("Date")
				return fmt.Sprint(response, body)
			}
			got := call(route)
			route.path = strings.Replace(route.path, "/users/1", fmt.Sprintf("/users/%d", deleted), 1)
			if other := call(route); !strings.Contains(got, "PERMISSION_MISSING") || other != got {
				t.Errorf("%s %s with %s: got %s\nand %s, want PERMISSION_MISSING twice", route.method, route.path, p, got, other)
			}
		}
	}
}
