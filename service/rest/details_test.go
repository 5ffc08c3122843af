package rest_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// created creates a user with tags and metadata, and returns its path and ETag.
func (c curl) created(name string) (path, etag string, got *userv1.User) {
	c.t.Helper()
	res := &userv1.CreateUserResponse{}
	header := c.want(request{method: "POST", path: "/api/v1/users", body: fmt.Sprintf(
		`{"username":%q,"email":"%s@example.com","tags":["a"],"metadata":{"k":"v"}}`, name, name)}, res).header
	return fmt.Sprintf("/api/v1/users/%d", res.GetUser().GetUserId()), header.Get("Etag"), res.GetUser()
}

// violationsOf returns the violations in an error.
func violationsOf(t *testing.T, body []byte) string {
	t.Helper()
	var s struct {
		Details []struct {
			FieldViolations []struct{ Field, Description string }
		}
	}
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatalf("%v: got %s", err, body)
	}
	var lines []string
	for _, d := range s.Details {
		for _, v := range d.FieldViolations {
			lines = append(lines, v.Field+": "+v.Description)
		}
	}
	return strings.Join(lines, "\n")
}

func TestViolationsNameFieldAndExpectation(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	path, _, _ := c.created("ann")
	post := func(body string) request { return request{method: "POST", path: "/api/v1/users", body: body} }
	for _, test := range []struct {
		request

		want string
	}{
		{post(`{"tags":"x"}`), "tags: must be an array of strings (line 1:9)"},
		{post(`{"username":"bob","metadata":{"a":1}}`), `metadata["a"]: must be a string (line 1:35)`},
		{post(`{"username":"bob",}`), "body: invalid JSON: trailing comma before } (line 1:19)"},
		{post("{\n  \"username\": bob\n}"), "body: invalid JSON: unexpected 'b' (line 2:15)"},
		{post(`{"username":"bob","email":"bob@example.com","metadata":{"a":"` + strings.Repeat("x", 1025) + `"}}`), `metadata["a"]: `},
		{post(`{"username":"bob","email":"bob@example.com","requestId":"x"}`), "request_id: "},
		{request{method: "PUT", path: path + "/status", body: `{"status":"PURPLE"}`}, "status: must be one of ACTIVE, INACTIVE, SUSPENDED (line 1:11)"},
		{request{method: "PATCH", path: path, body: `{"tags":{}}`}, "tags: must be an array of strings (line 1:9)"},
		{request{method: "PATCH", path: path, body: `{"username":""}`}, "user.username: must not be empty"},
		{request{method: "GET", path: "/api/v1/users?pageSize=ten"}, "page_size: must be a 32-bit integer"},
		{request{method: "GET", path: "/api/v1/users?showDeleted=maybe"}, "show_deleted: must be true or false"},
		{request{method: "GET", path: path + "/activities?order=UP"}, "order: must be one of NEWEST_FIRST, OLDEST_FIRST"},
		{request{method: "GET", path: path + "?fields=colour"}, "fields[0]: must be one of user_id"},
		{request{method: "GET", path: "/api/v1/users:batchGet?userIds=1,x"}, "user_ids[1]: must be a 64-bit integer"},
		{request{method: "POST", path: "/api/v1/users:batchCreate", body: `{"requests":[{},{"tags":[1]}]}`}, "requests[1].tags[0]: must be a string (line 1:26)"},
		{request{method: "GET", path: path + "/activities?since=yesterday", header: map[string]string{"Accept": "application/x-ndjson"}}, "since: must be an RFC 3339 time"},
		{request{method: "GET", path: "/api/v1/users/abc"}, "user_id: must be a 64-bit integer"},
	} {
		got := c.do(test.request)
		if got.status != http.StatusBadRequest || !strings.Contains(violationsOf(t, got.body), test.want) {
			t.Errorf("%s %s %s = %d %q, want %q", test.method, test.path, test.body, got.status, violationsOf(t, got.body), test.want)
		}
	}
}

func TestJSONBodiesEndInANewline(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	path, _, _ := c.created("ann")
	for _, q := range []request{
		{method: "GET", path: path}, {method: "GET", path: "/api/v1/users"}, {method: "GET", path: "/api/v1/users/1"},
		{method: "GET", path: "/api/v1/nothing"}, {method: "PUT", path: path}, {method: "GET", path: "/api/v1/users?x=1"},
		{method: "POST", path: "/api/v1/users", body: "{"}, {method: "PATCH", path: path, body: `{"tags":[]}`},
		{method: "GET", path: path + "/activities"}, {method: "DELETE", path: path}, {method: "GET", path: "/openapi.yaml"},
	} {
		got := c.do(q)
		if !bytes.HasSuffix(got.body, []byte("\n")) || bytes.HasSuffix(got.body, []byte("\n\n")) ||
			got.header.Get("Content-Length") != "" && got.header.Get("Content-Length") != fmt.Sprint(len(got.body)) {
			t.Errorf("%s %s: %d %v ends in %q", q.method, q.path, got.status, got.header, got.body[max(0, len(got.body)-10):])
		}
	}
}

func TestEmptyListsArePresent(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	path, _, _ := c.created("ann")
	id := strings.TrimPrefix(path, "/api/v1/users/")
	c.do(request{method: "PATCH", path: path, body: `{"tags":[],"metadata":{}}`})
	for _, test := range []struct {
		request

		want, without []string // in the body
	}{
		{request{method: "GET", path: path}, []string{`"tags":[]`, `"metadata":{}`}, nil},
		{request{method: "GET", path: path + "?fields=email"}, []string{`"email"`}, []string{"tags", "metadata", "username"}},
		{request{method: "GET", path: path + "?fields=email,tags"}, []string{`"tags":[]`}, []string{"metadata"}},
		{request{method: "GET", path: "/api/v1/users:batchGet?fields=userId,metadata&userIds=" + id}, []string{`"metadata":{}`, `"missingUserIds":[]`, `"leftOverUserIds":[]`}, []string{"tags"}},
		{request{method: "GET", path: "/api/v1/users:batchGet?userIds=1"}, []string{`"users":[]`, `"missingUserIds":["1"]`}, nil},
		{request{method: "GET", path: `/api/v1/users?filter=username%3D%22nobody%22`}, []string{`"users":[]`}, []string{"nextPageToken"}},
		{request{method: "GET", path: "/api/v1/users"}, []string{`"users":[{`, `"tags":[]`, `"metadata":{}`}, nil},
		{request{method: "GET", path: path + "/activities?actions=app.none"}, []string{`"activities":[]`}, nil},
		{request{method: "POST", path: "/api/v1/users", body: `{"username":"bob","email":"bob@example.com","validateOnly":true}`}, []string{`"tags":[]`}, []string{"userId", "etag"}},
	} {
		got := c.do(test.request)
		text := strings.ReplaceAll(string(got.body), " ", "")
		for _, want := range test.want {
			if got.status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s %s = %d %s, want %s", test.method, test.path, got.status, text, want)
			}
		}
		for _, no := range test.without {
			if strings.Contains(text, no) {
				t.Errorf("%s %s = %s, want no %s", test.method, test.path, text, no)
			}
		}
	}
}

func TestPatchWithoutMaskUsesTheMembers(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	for i, test := range []struct {
		body, want string
	}{
		{`{"tags":[]}`, "[] map[k:v]"},
		{`{"tags":null}`, "[] map[k:v]"},
		{`{"metadata":{}}`, "[a] map[]"},
		{`{"metadata":{"x":"y"}}`, "[a] map[x:y]"},
		{`{"tags":["b"],"metadata":{}}`, "[b] map[]"},
		{`{}`, "[a] map[k:v]"},
		{`{"version":"99","etag":"other","createdAt":"2020-01-01T00:00:00Z"}`, "[a] map[k:v]"},
		{`{"tags":[],"updatedAt":"2020-01-01T00:00:00Z","purge_at":null}`, "[] map[k:v]"},
	} {
		path, _, before := c.created(fmt.Sprintf("ann%d", i))
		res := &userv1.UpdateUserResponse{}
		c.want(request{method: "PATCH", path: path, body: test.body}, res)
		if got := fmt.Sprint(res.GetUser().GetTags(), res.GetUser().GetMetadata()); got != test.want ||
			res.GetUser().GetUsername() != before.GetUsername() || res.GetUser().GetEmail() != before.GetEmail() {
			t.Errorf("PATCH %s = %s, want %s", test.body, got, test.want)
		}
	}
	// Sending a received user back changes nothing.
	path, _, before := c.created("echo")
	whole := c.do(request{method: "GET", path: path}).body
	var got struct{ User json.RawMessage }
	if err := json.Unmarshal(whole, &got); err != nil {
		t.Fatal(err)
	}
	res := &userv1.UpdateUserResponse{}
	c.want(request{method: "PATCH", path: path, body: string(got.User)}, res)
	if res.GetUser().GetVersion() != before.GetVersion() {
		t.Errorf("version %d, want %d", res.GetUser().GetVersion(), before.GetVersion())
	}
	// An explicit mask takes precedence.
	c.want(request{method: "PATCH", path: path + "?updateMask=tags", body: `{"email":"other@example.com"}`}, res)
	if res.GetUser().GetEmail() != before.GetEmail() || len(res.GetUser().GetTags()) > 0 {
		t.Errorf("got %v", res)
	}
}

// A write returns the ETag for the next If-Match.
func TestETagOfWrites(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	path, etag, u := c.created("ann")
	if etag != `"`+u.GetEtag()+`"` {
		t.Fatalf("ETag %s of %v", etag, u)
	}
	old := etag
	for _, ifMatch := range []string{"%s", "W/%s", `"x", %s`, `%s, "x"`, `W/"x" ,, W/%s`, "*"} {
		header := map[string]string{"If-Match": strings.ReplaceAll(ifMatch, "%s", etag)}
		res := c.do(request{method: "PATCH", path: path, header: header, body: fmt.Sprintf(`{"metadata":{"n":%q}}`, ifMatch)})
		next := res.header.Get("Etag")
		if res.status != http.StatusOK || next == "" || next == etag || res.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("If-Match %s = %d %v %s", header, res.status, res.header, res.body)
		}
		if get := c.do(request{method: "GET", path: path}).header.Get("Etag"); get != next {
			t.Errorf("ETag of the write %s, of the user %s", next, get)
		}
		etag = next
	}
	for _, ifMatch := range []string{old, "W/" + old, old + `, "x"`, `"x"`, `"x", "y"`} {
		res := c.do(request{method: "PATCH", path: path, header: map[string]string{"If-Match": ifMatch}, body: `{"tags":["z"]}`})
		if p := readProblem(t, res.body); res.status != http.StatusPreconditionFailed || p.reason != string(user.EtagMismatch) || `"`+p.meta["etag"]+`"` != etag {
			t.Errorf("If-Match %s = %d %s", ifMatch, res.status, res.body)
		}
	}
	dry := c.do(request{method: "POST", path: "/api/v1/users", body: `{"username":"bob","email":"bob@example.com","validateOnly":true}`})
	if dry.status != http.StatusOK || dry.header.Get("Etag") != "" {
		t.Errorf("validate_only = %d %v", dry.status, dry.header)
	}
	deleted := c.do(request{method: "DELETE", path: path, header: map[string]string{"If-Match": `"x", ` + etag}})
	if deleted.status != http.StatusOK || deleted.header.Get("Etag") == "" || deleted.header.Get("Etag") == etag {
		t.Errorf("DELETE = %d %v", deleted.status, deleted.header)
	}
	back := c.do(request{method: "POST", path: path + ":undelete", header: map[string]string{"If-Match": `"x", ` + deleted.header.Get("Etag")}})
	if back.status != http.StatusOK || back.header.Get("Etag") == "" {
		t.Errorf("undelete = %d %s", back.status, back.body)
	}
}

// Idempotency-Key sets request_id.
func TestIdempotencyKey(t *testing.T) {
	const key, other = "6f1c0c5e-7d7c-4a5e-9d5b-0a4f3b1c2d3e", "11111111-7d7c-4a5e-9d5b-0a4f3b1c2d3e"
	c := curl{t, servertest.Start(t), false}
	create := func(key, more string) reply {
		header := map[string]string{"Idempotency-Key": key}
		if key == "" {
			header = nil
		}
		return c.do(request{method: "POST", path: "/api/v1/users", header: header,
			body: `{"username":"ann","email":"ann@example.com"` + more + `}`})
	}
	first := create(key, "")
	path, _, _ := c.created("bob")
	for name, again := range map[string]reply{
		"the same": create(key, ""), "in quotes": create(`"`+key+`"`, ""), "in capitals": create(strings.ToUpper(key), ""),
		"in the body too": create(key, `,"requestId":"`+key+`"`), "in the body": create("", `,"requestId":"`+key+`"`),
	} {
		if again.status != http.StatusOK || !bytes.Equal(again.body, first.body) {
			t.Errorf("%s: %d %s, want %s", name, again.status, again.body, first.body)
		}
	}
	header := func(key string) map[string]string { return map[string]string{"Idempotency-Key": key} }
	for name, test := range map[string]struct {
		request

		status int
		want   string
	}{
		"another in the body":   {request{method: "POST", path: "/api/v1/users", header: header(key), body: `{"requestId":"` + other + `"}`}, 400, "request_id: differs from Idempotency-Key"},
		"another in the query":  {request{method: "DELETE", path: path + "?requestId=" + other, header: header(key)}, 400, "request_id: differs from Idempotency-Key"},
		"no UUID":               {request{method: "DELETE", path: path, header: header("order-17")}, 400, "Idempotency-Key: must be one UUID"},
		"UUID in braces":        {request{method: "DELETE", path: path, header: header("{" + key + "}")}, 400, "Idempotency-Key: must be one UUID"},
		"empty":                 {request{method: "DELETE", path: path, header: header(`""`)}, 400, "Idempotency-Key: must be one UUID"},
		"opening quote only":    {request{method: "DELETE", path: path, header: header(`"` + key)}, 400, "Idempotency-Key: must be one UUID"},
		"batch":                 {request{method: "POST", path: "/api/v1/users:batchCreate", header: header(key), body: `{}`}, 400, "Idempotency-Key: not supported"},
		"read":                  {request{method: "GET", path: path, header: header("order-17")}, 200, ""},
		"read by POST":          {request{method: "POST", path: "/api/v1/users:batchGet", header: header("order-17"), body: `{"userIds":["1"]}`}, 200, ""},
		"used for another call": {request{method: "POST", path: "/api/v1/users", header: header(key), body: `{"username":"eve","email":"eve@example.com"}`}, 409, ""},
		"delete":                {request{method: "DELETE", path: path, header: header(key)}, 200, ""},
		"activity":              {request{method: "POST", path: "/api/v1/users/" + idOf(t, first) + "/activities", header: header(key), body: `{"action":"app.login"}`}, 200, ""},
		"status":                {request{method: "PUT", path: "/api/v1/users/" + idOf(t, first) + "/status", header: header(key), body: `{"status":"ACTIVE"}`}, 200, ""},
		"patch":                 {request{method: "PATCH", path: "/api/v1/users/" + idOf(t, first), header: header(key), body: `{"tags":["x"]}`}, 200, ""},
		"undelete, not deleted": {request{method: "POST", path: "/api/v1/users/" + idOf(t, first) + ":undelete", header: header(other)}, 400, ""},
	} {
		got := c.do(test.request)
		if got.status != test.status || !strings.Contains(violationsOf(t, got.body), test.want) {
			t.Errorf("%s: %d %s, want %d %s", name, got.status, got.body, test.status, test.want)
		}
	}
}

// A request with several tags in If-Match can be repeated with its Idempotency-Key.
func TestIdempotencyKeyWithTags(t *testing.T) {
	const key = "6f1c0c5e-7d7c-4a5e-9d5b-0a4f3b1c2d3e"
	c := curl{t, servertest.Start(t), false}
	path, etag, _ := c.created("ann")
	update := func(tag string) reply {
		return c.do(request{method: "PATCH", path: path, body: `{"tags":["` + tag + `"]}`,
			header: map[string]string{"Idempotency-Key": key, "If-Match": `"1-other", ` + etag}})
	}
	first, again := update("a"), update("a")
	if first.status != http.StatusOK || again.status != http.StatusOK || !bytes.Equal(first.body, again.body) {
		t.Errorf("repeated request = %d %s, want %d %s", again.status, again.body, first.status, first.body)
	}
	if other := update("b"); other.status != http.StatusConflict {
		t.Errorf("other request = %d %s, want 409", other.status, other.body)
	}
}

func idOf(t *testing.T, created reply) string {
	t.Helper()
	var res struct{ User struct{ UserID string } }
	if err := json.Unmarshal(created.body, &res); err != nil || res.User.UserID == "" {
		t.Fatalf("%v: got %s", err, created.body)
	}
	return res.User.UserID
}

// Field names are accepted in camel case over every protocol.
func TestFieldNamesInCamelCase(t *testing.T) {
	s := servertest.Start(t)
	c := curl{t, s, false}
	path, _, u := c.created("ann")
	got := c.do(request{method: "GET", path: path + "?fields=createdAt,userId"})
	if text := string(got.body); got.status != http.StatusOK || !strings.Contains(text, "createdAt") || strings.Contains(text, "updatedAt") {
		t.Errorf("fields=createdAt = %d %s", got.status, text)
	}
	for _, query := range []string{"orderBy=updatedAt", "order_by=updatedAt%20desc", "orderBy=userId", `filter=createdAt%3E%222020-01-01T00:00:00Z%22`,
		`filter=updatedAt%3E%222020-01-01T00:00:00Z%22%20AND%20status%3DACTIVE`} {
		list := &userv1.ListUsersResponse{}
		c.want(request{method: "GET", path: "/api/v1/users?" + query}, list)
		if len(list.GetUsers()) != 1 {
			t.Errorf("%s = %v", query, list)
		}
	}
	for _, p := range servertest.Protocols() {
		client := s.Client(p)
		one, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: u.GetUserId(), Fields: []string{"createdAt"}})
		if err != nil || one.GetUser().GetCreatedAt() == nil || one.GetUser().GetUsername() != "" {
			t.Errorf("%s: GetUser = %v, %v", p.Name, one, err)
		}
		list, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{OrderBy: "updatedAt desc", Filter: `createdAt > "2020-01-01T00:00:00Z"`})
		if err != nil || len(list.GetUsers()) != 1 {
			t.Errorf("%s: ListUsers = %v, %v", p.Name, list, err)
		}
	}
}

func TestReadsByPOST(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	path, _, u := c.created("ann")
	var ids []string
	for i := range 900 {
		ids = append(ids, fmt.Sprintf(`"%d"`, u.GetUserId()+int64(i)))
	}
	body := `{"userIds":[` + strings.Join(ids, ",") + `]}`
	got := &userv1.BatchGetUsersResponse{}
	c.want(request{method: "POST", path: "/api/v1/users:batchGet", body: body}, got)
	if len(got.GetUsers()) != 1 || len(got.GetMissingUserIds()) != 899 {
		t.Errorf("%d users, %d missing", len(got.GetUsers()), len(got.GetMissingUserIds()))
	}
	for _, accept := range []string{"text/event-stream", "application/x-ndjson", "", ","} {
		res := c.send(request{method: "POST", path: "/api/v1/users:watchStatus", body: `{"userIds":["` + strings.TrimPrefix(path, "/api/v1/users/") + `"]}`,
			header: map[string]string{"Accept": accept}})
		want := accept
		if len(want) < 2 { // no element
			want = "text/event-stream"
		}
		buf := make([]byte, 4096)
		n, err := io.ReadAtLeast(res.Body, buf, len("retry: 2000\n\n")+20)
		if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != want || res.Header.Get("X-Accel-Buffering") != "no" ||
			res.Header.Get("Cache-Control") != "no-store" || !strings.Contains(string(buf[:n]), "ACTIVE") {
			t.Errorf("%q: got %d %v %s, %v", accept, res.StatusCode, res.Header, buf[:n], err)
		}
		_ = res.Body.Close()
	}
	bad := c.do(request{method: "POST", path: "/api/v1/users:watchStatus", body: `{"userIds":"7"}`})
	if bad.status != http.StatusBadRequest || violationsOf(t, bad.body) != "user_ids: must be an array of integers (line 1:12)" {
		t.Errorf("got %d %s", bad.status, bad.body)
	}
}

func TestOversizedBodyIs413(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(bytes.Repeat([]byte(" "), 5<<20))
	_ = w.Close()
	for name, q := range map[string]request{
		"plain":      {method: "POST", path: "/api/v1/users", body: strings.Repeat(" ", 5<<20)},
		"compressed": {method: "POST", path: "/api/v1/users", body: packed.String(), header: map[string]string{"Content-Encoding": "gzip"}},
		"x-gzip":     {method: "POST", path: "/api/v1/users", body: packed.String(), header: map[string]string{"Content-Encoding": "x-gzip"}},
		"of a path":  {method: "PATCH", path: "/api/v1/users/1", body: strings.Repeat(" ", 5<<20)},
		"of a watch": {method: "POST", path: "/api/v1/users:watchStatus", body: strings.Repeat(" ", 5<<20)},
	} {
		got := c.do(q)
		if p := readProblem(t, got.body); got.status != http.StatusRequestEntityTooLarge || p.reason != string(user.MessageTooLarge) {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
}

// An EventSource resumes after a backup was restored.
func TestEventSourceOfAnotherEpoch(t *testing.T) {
	c := curl{t, servertest.Start(t), false}
	path, _, _ := c.created("ann")
	for _, q := range []request{
		sse(path+"/activities", "Last-Event-ID", "otherepoch:1"), sse(path + "/activities?lastEventId=otherepoch:1"),
		sse("/api/v1/users:watchStatus?all=true&lastEventId=otherepoch:1"), sse("/api/v1/users/0/activities?lastEventId=otherepoch:1"),
		sse("/api/v1/users/0/activities?after_activity_id=1&epoch=otherepoch"),
	} {
		got := c.do(q)
		s, err := parseEvents(string(got.body))
		if err != nil || got.status != http.StatusOK || len(s.events) != 1 || s.events[0].name != "error" {
			t.Fatalf("%s: got %d %s %v", q.path, got.status, got.body, err)
		}
		if p := readProblem(t, []byte(s.events[0].data)); p.reason != string(user.PositionOutOfRange) || p.meta["epoch"] == "" {
			t.Errorf("%s: got %+v", q.path, p)
		}
		back, _, _ := strings.Cut(q.path, "?")
		if again := c.do(sse(back, "Last-Event-ID", s.lastID)); again.status != http.StatusNoContent {
			t.Errorf("%s: then %d %s", q.path, again.status, again.body)
		}
	}
}
