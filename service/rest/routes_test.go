package rest_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/rest"
)

// routes has a request for each route, and the expected RPC message.
var routes = []struct {
	request

	template string
	want     proto.Message
}{
	{request{method: "GET", path: "/api/v1/users/7?fields=email&fields=username"}, "/api/v1/users/{user_id}",
		&userv1.GetUserRequest{UserId: 7, Fields: []string{"email", "username"}}},
	{request{method: "GET", path: "/api/v1/users:batchGet?userIds=1,2&fields=email,tags"}, "/api/v1/users:batchGet",
		&userv1.BatchGetUsersRequest{UserIds: []int64{1, 2}, Fields: []string{"email", "tags"}}},
	{request{method: "POST", path: "/api/v1/users:batchGet", body: `{"userIds":["1",2],"fields":["email"]}`}, "/api/v1/users:batchGet",
		&userv1.BatchGetUsersRequest{UserIds: []int64{1, 2}, Fields: []string{"email"}}},
	{request{method: "POST", path: "/api/v1/users:watchStatus", body: `{"userIds":["1"],"afterActivityId":"4"}`}, "",
		&userv1.WatchUserStatusRequest{UserIds: []int64{1}, AfterActivityId: 4}},
	{request{method: "GET", path: "/api/v1/users?showDeleted=True"}, "", &userv1.ListUsersRequest{ShowDeleted: true}},
	{request{method: "GET", path: "/api/v1/users?show_deleted=1"}, "", &userv1.ListUsersRequest{ShowDeleted: true}},
	{request{method: "GET", path: "/api/v1/users/7/activities?order=OLDEST_FIRST"}, "",
		&userv1.ListUserActivitiesRequest{UserId: 7, Order: userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST}},
	{request{method: "PUT", path: "/api/v1/users/7/status", body: `{"status":"ACTIVE"}`}, "",
		&userv1.UpdateUserStatusRequest{UserId: 7, Status: userv1.UserStatus_USER_STATUS_ACTIVE}},
	{request{method: "GET", path: "/api/v1/users?pageSize=10&filter=status%20%3D%20ACTIVE&order_by=email%20desc&showDeleted=true"}, "/api/v1/users",
		&userv1.ListUsersRequest{PageSize: 10, Filter: "status = ACTIVE", OrderBy: "email desc", ShowDeleted: true}},
	{request{method: "POST", path: "/api/v1/users", body: `{"username":"ann","email":"a@b.c","metadata":{"k":"v"}}`}, "/api/v1/users",
		&userv1.CreateUserRequest{Username: "ann", Email: "a@b.c", Metadata: map[string]string{"k": "v"}}},
	{request{method: "PATCH", path: "/api/v1/users/7?updateMask=email,metadata.someKey,metadata.a_b&request_id=x", body: `{"email":"a@b.c"}`}, "/api/v1/users/{user_id}",
		&userv1.UpdateUserRequest{UserId: 7, User: &userv1.User{Email: "a@b.c"}, UpdateMask: mask("email", "metadata.someKey", "metadata.a_b"), RequestId: "x"}},
	{request{method: "PATCH", path: "/api/v1/users/7?update_mask.paths=metadata.a,b", body: `{"email":"a@b.c"}`}, "",
		&userv1.UpdateUserRequest{UserId: 7, User: &userv1.User{Email: "a@b.c"}, UpdateMask: mask("metadata.a,b")}},
	{request{method: "DELETE", path: "/api/v1/users/7?etag=1-a"}, "/api/v1/users/{user_id}",
		&userv1.DeleteUserRequest{UserId: 7, Etag: "1-a"}},
	{request{method: "POST", path: "/api/v1/users/7:undelete", body: `{"etag":"1-a"}`}, "/api/v1/users/{user_id}:undelete",
		&userv1.UndeleteUserRequest{UserId: 7, Etag: "1-a"}},
	{request{method: "POST", path: "/api/v1/users/7:undelete"}, "", &userv1.UndeleteUserRequest{UserId: 7}},
	{request{method: "POST", path: "/api/v1/users/7:purge", body: `{"etag":"1-a"}`}, "/api/v1/users/{user_id}:purge",
		&userv1.PurgeUserRequest{UserId: 7, Etag: "1-a"}},
	{request{method: "POST", path: "/api/v1/users:batchCreate", body: `{"atomic":true}`}, "/api/v1/users:batchCreate",
		&userv1.CreateUsersRequest{Atomic: true}},
	{request{method: "POST", path: "/api/v1/users:batchUpdate", body: `{"requests":[{"userId":"5"}]}`}, "/api/v1/users:batchUpdate",
		&userv1.UpdateUsersRequest{Requests: []*userv1.UpdateUserRequest{{UserId: 5}}}},
	{request{method: "GET", path: "/api/v1/users/0/activities?order=ACTIVITY_ORDER_OLDEST_FIRST&actions=user.created"}, "/api/v1/users/{user_id}/activities",
		&userv1.ListUserActivitiesRequest{Order: userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST, Actions: []string{"user.created"}}},
	{request{method: "POST", path: "/api/v1/users/7/activities", body: `{"user_id":7,"action":"app.login"}`}, "/api/v1/users/{user_id}/activities",
		&userv1.RecordUserActivityRequest{UserId: 7, Action: "app.login"}},
	{request{method: "PUT", path: "/api/v1/users/7/status", body: `{"userId":"7","status":"USER_STATUS_SUSPENDED"}`}, "/api/v1/users/{user_id}/status",
		&userv1.UpdateUserStatusRequest{UserId: 7, Status: userv1.UserStatus_USER_STATUS_SUSPENDED}},
	{request{method: "GET", path: "/api/v1/users:watchStatus?all=true"}, "/api/v1/users:watchStatus",
		&userv1.WatchUserStatusRequest{All: true}},
	{request{method: "GET", path: "/api/v1/users:watch?filter=status%20%3D%20ACTIVE&showDeleted=true&fields=email"}, "/api/v1/users:watch",
		&userv1.WatchUsersRequest{Filter: "status = ACTIVE", ShowDeleted: true, Progress: true, Fields: []string{"email"}}},
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func TestRoutes(t *testing.T) {
	f := &fake{}
	h := newHandler(t, f)
	for _, test := range routes {
		for _, pack := range []bool{false, true} {
			test.gzip = pack && test.body != ""
			t.Run(test.method+" "+test.path, func(t *testing.T) {
				w := serve(t, h, test.request)
				if w.Code != http.StatusOK {
					t.Fatalf("response = %d %s", w.Code, w.Body)
				}
				received := f.receivedMessages()
				if len(received) != 1 || !proto.Equal(received[0], test.want) {
					t.Errorf("handler received %v", received)
				}
			})
		}
	}
}

// withoutAnnotation has the reason why an RPC has no google.api.http annotation.
var withoutAnnotation = map[protoreflect.Name]string{
	"BatchCreateUsers":     "client stream; CreateUsers is the unary form",
	"BatchUpdateUsers":     "client stream; UpdateUsers is the unary form",
	"SyncUserStatus":       "bidirectional stream; UpdateUserStatus and WatchUserStatus replace it",
	"StreamUserActivities": "shares the path of ListUserActivities, selected by Accept",
	"WatchUserStatus":      "server stream, a route of package rest",
	"WatchUsers":           "server stream, a route of package rest",
}

func TestEveryAnnotationIsServed(t *testing.T) {
	h := newHandler(t, &fake{})
	known := map[string]bool{}
	for _, test := range routes {
		known[test.method+" "+test.template] = true
	}
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		name := methods.Get(i).Name()
		method, path := annotated(t, methods.Get(i))
		if reason := withoutAnnotation[name]; (reason == "") != (method != "") {
			t.Errorf("%s: annotation %q and reason for none %q, want one of them", name, method+" "+path, reason)
		}
		if method == "" {
			continue
		}
		if !known[method+" "+path] {
			t.Errorf("%s %s is missing in routes", method, path)
		}
		w := serve(t, h, request{method: method, path: strings.ReplaceAll(path, "{user_id}", "7")})
		if w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed {
			t.Errorf("%s %s: got %d", method, path, w.Code)
		}
	}
}

func annotated(t *testing.T, rpc protoreflect.MethodDescriptor) (method, path string) {
	t.Helper()
	rule, ok := proto.GetExtension(rpc.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return "", ""
	}
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "GET", p.Get
	case *annotations.HttpRule_Post:
		return "POST", p.Post
	case *annotations.HttpRule_Put:
		return "PUT", p.Put
	case *annotations.HttpRule_Patch:
		return "PATCH", p.Patch
	case *annotations.HttpRule_Delete:
		return "DELETE", p.Delete
	}
	t.Fatalf("%s: unknown HTTP rule", rpc.FullName())
	return "", ""
}

func TestHTTPErrors(t *testing.T) {
	h := newHandler(t, &fake{})
	for _, test := range []struct {
		request

		status int
		header map[string]string
	}{
		{request{method: "GET", path: "/api/v1/"}, 404, nil},
		{request{method: "GET", path: "/api/v1/users/"}, 404, nil},
		{request{method: "GET", path: "/api/v1/users/7/"}, 404, nil},
		{request{method: "GET", path: "/api/v1/users%2F7"}, 404, nil},
		{request{method: "GET", path: "/api/v1/users/7:"}, 404, nil},
		{request{method: "GET", path: "/api/v1/users/7:undelete:x"}, 404, nil},
		{request{method: "POST", path: "/api/v1/users:syncStatus"}, 404, nil},
		{request{method: "POST", path: "/user.v1.UserService/GetUser", body: "{}"}, 404, nil},
		{request{method: "PUT", path: "/api/v1/users/7"}, 405, map[string]string{"Allow": "DELETE, GET, HEAD, PATCH"}},
		{request{method: "GET", path: "/api/v1/users/7:undelete"}, 405, map[string]string{"Allow": "POST"}},
		{request{method: "PUT", path: "/api/v1/users:watchStatus"}, 405, map[string]string{"Allow": "GET, POST"}},
		{request{method: "POST", path: "/api/v1/users:watchStatus", body: "{}", header: map[string]string{"Accept": "application/json"}}, 406, nil},
		{request{method: "POST", path: "/api/v1/users:watchStatus", body: "{}", header: map[string]string{"Content-Type": "text/plain"}}, 415, nil},
		{request{method: "HEAD", path: "/api/v1/users:watchStatus?all=true"}, 405, map[string]string{"Allow": "GET"}},
		{request{method: "DELETE", path: "/openapi.yaml"}, 405, map[string]string{"Allow": "GET, HEAD"}},
		{request{method: "POST", path: "/api/v1/users", body: "{}", header: map[string]string{"Content-Type": ""}}, 415, nil},
		{
			request{method: "POST", path: "/api/v1/users", body: "{}", header: map[string]string{"Content-Type": "text/plain"}}, 415,
			map[string]string{"Accept": "application/json", "Accept-Encoding": ""}, // Accept-Encoding would blame the coding
		},
		{request{method: "POST", path: "/api/v1/users", body: "{}", header: map[string]string{"Content-Type": "application/grpc"}}, 415, nil},
		{request{method: "POST", path: "/api/v1/users", body: "{}", header: map[string]string{"Content-Type": "application/json; charset=latin1"}}, 415, nil},
		{request{method: "POST", path: "/api/v1/users", body: "{}", header: map[string]string{"Content-Encoding": "br"}}, 415, map[string]string{"Accept-Encoding": "gzip"}},
		{request{method: "GET", path: "/api/v1/users/7/activities", header: map[string]string{"Accept": "text/html"}}, 406, map[string]string{"Vary": "Accept"}},
		{request{method: "GET", path: "/api/v1/users:watchStatus?all=true", header: map[string]string{"Accept": "application/json"}}, 406, nil},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			w := serve(t, h, test.request)
			if w.Code != test.status {
				t.Fatalf("response = %d %s", w.Code, w.Body)
			}
			readProblem(t, w.Body.Bytes())
			for name, want := range test.header {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: got %q", name, got)
				}
			}
		})
	}
}

func TestJSONBodiesWithCharset(t *testing.T) {
	h := newHandler(t, &fake{})
	for _, contentType := range []string{"application/json", "application/json;charset=UTF-8", "Application/JSON; charset=utf-8"} {
		w := serve(t, h, request{method: "POST", path: "/api/v1/users", body: "{}", header: map[string]string{"Content-Type": contentType}})
		if w.Code != http.StatusOK {
			t.Errorf("%s: got %d %s", contentType, w.Code, w.Body)
		}
	}
}

func TestResponsesAreProtobufJSON(t *testing.T) {
	w := serve(t, newHandler(t, &fake{}), request{method: "GET", path: "/api/v1/users/9007199254740993"})
	contains(t, strings.ReplaceAll(w.Body.String(), " ", ""), `"userId":"9007199254740993"`)
	got := &userv1.GetUserResponse{}
	if err := protojson.Unmarshal(w.Body.Bytes(), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got.GetUser(), testUser(9007199254740993)) {
		t.Errorf("got %v", got)
	}
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
		t.Errorf("got %v", w.Header())
	}
}

func TestOpenAPI(t *testing.T) {
	h := newHandler(t, &fake{})
	w := serve(t, h, request{method: "GET", path: rest.OpenAPIPath})
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/yaml" {
		t.Fatalf("got %d %v", w.Code, w.Header())
	}
	var document struct {
		OpenAPI string                    `yaml:"openapi"`
		Raw     map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(w.Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1.") {
		t.Errorf("version %q", document.OpenAPI)
	}
	described := map[string]bool{}
	for path, operations := range document.Raw {
		for name := range operations {
			method := strings.ToUpper(name)
			if !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "PATCH"}, method) {
				continue
			}
			described[method+" "+path] = true
			res := serve(t, h, request{method: method, path: strings.ReplaceAll(path, "{user_id}", "7")})
			if res.Code == http.StatusNotFound || res.Code == http.StatusMethodNotAllowed {
				t.Errorf("%s %s is documented but not served: %d", method, path, res.Code)
			}
		}
	}
	for _, test := range routes {
		if test.template != "" && !described[test.method+" "+test.template] {
			t.Errorf("%s %s is served but not documented", test.method, test.template)
		}
	}
	again := serve(t, h, request{method: "GET", path: rest.OpenAPIPath, header: map[string]string{"If-None-Match": w.Header().Get("Etag")}})
	if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("%d with %d bytes", again.Code, again.Body.Len())
	}
}
