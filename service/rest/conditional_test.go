package rest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/user"
)

const connectGet = userv1connect.UserServiceGetUserProcedure + "?connect=v1&encoding=json&message="

func connectGetURL(message string) string { return connectGet + url.QueryEscape(message) }

// both serves a user over REST and Connect GET, like the server.
func both(t *testing.T, f *fake) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/user.v1.UserService/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connectHandler(f).ServeHTTP(rest.ConditionalGet(w, r), r)
	}))
	mux.Handle("/", newHandler(t, f))
	return mux
}

func TestETag(t *testing.T) {
	h := both(t, &fake{})
	tags := map[string]string{}
	for _, path := range []string{
		"/api/v1/users/7", "/api/v1/users/7?fields=email", "/api/v1/users/7?fields=tags",
		connectGetURL(`{"userId":"7"}`), connectGetURL(`{"userId":"7","fields":["email"]}`),
	} {
		w := serve(t, h, request{method: "GET", path: path})
		etag := w.Header().Get("Etag")
		if w.Code != http.StatusOK || !strings.HasPrefix(etag, `"`+testEtag) || w.Header().Get("Cache-Control") != "private, no-cache" {
			t.Fatalf("GET %s = %d %v", path, w.Code, w.Header())
		}
		if other, found := tags[etag]; found {
			t.Errorf("%s and %s have the same ETag %s", path, other, etag)
		}
		tags[etag] = path
		for _, condition := range []string{etag, "W/" + etag, `"x", ` + etag, "*", `"a,b" ,, W/` + etag} {
			for _, method := range []string{"GET", "HEAD"} {
				if method == "HEAD" && strings.HasPrefix(path, "/user.v1") {
					continue // Connect has no HEAD
				}
				again := serve(t, h, request{method: method, path: path, header: map[string]string{"If-None-Match": condition}})
				if again.Code != http.StatusNotModified || again.Body.Len() > 0 || again.Header().Get("Etag") != etag ||
					again.Header().Get("Content-Type") != "" || again.Header().Get("Content-Length") != "" {
					t.Errorf("%s %s with %s: %d %v %q", method, path, condition, again.Code, again.Header(), again.Body)
				}
			}
		}
		for _, condition := range []string{`"x"`, `"x", "y"`, testEtag, `"` + testEtag, `"` + testEtag + `" x`} {
			again := serve(t, h, request{method: "GET", path: path, header: map[string]string{"If-None-Match": condition}})
			if again.Code != http.StatusOK || again.Body.Len() == 0 {
				t.Errorf("GET %s with %s = %d", path, condition, again.Code)
			}
		}
	}
	for condition, want := range map[string]int{"*": 200, `"x", W/"` + testEtag + `"`: 200, `"x"`: 412, testEtag: 412} {
		for _, path := range []string{"/api/v1/users/7", connectGetURL(`{"userId":"7"}`)} {
			etag := serve(t, h, request{method: "GET", path: path}).Header().Get("Etag")
			condition := strings.ReplaceAll(condition, `"`+testEtag+`"`, etag)
			got := serve(t, h, request{method: "GET", path: path, header: map[string]string{"If-Match": condition}})
			if got.Code != want || want == http.StatusPreconditionFailed && got.Body.Len() > 0 {
				t.Errorf("GET %s with If-Match %s = %d %s, want %d", path, condition, got.Code, got.Body, want)
			}
		}
	}
	if tags[`"`+testEtag+`"`] != "/api/v1/users/7" {
		t.Error("ETag of the complete user differs from its etag")
	}
}

// HEAD is tested with a real server, which omits the body itself.
func TestHead(t *testing.T) {
	server := httptest.NewServer(newHandler(t, &fake{}))
	defer server.Close()
	get, head := do(t, server, "GET", "/api/v1/users/7"), do(t, server, "HEAD", "/api/v1/users/7")
	if head.status != http.StatusOK || head != get || head.etag == "" || head.length <= 0 {
		t.Errorf("%v, but GET %v", head, get)
	}
	if missing := do(t, server, "HEAD", "/api/v1/nothing"); missing.status != http.StatusNotFound {
		t.Errorf("got %d", missing.status)
	}
	server.Client().CloseIdleConnections()
}

// responseHead is a response without its body.
type responseHead struct {
	status int
	length int64
	etag   string
}

func do(t *testing.T, server *httptest.Server, method, path string) responseHead {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return responseHead{res.StatusCode, res.ContentLength, res.Header.Get("Etag")}
}

// A compressed response is another representation.
func TestETagDependsOnContentEncoding(t *testing.T) {
	f := &fake{}
	h := both(t, f)
	large := testUser(7)
	large.Metadata = map[string]string{"k": strings.Repeat("v", 1000)}
	f.get = func(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
		f.get = nil
		res, err := f.GetUser(ctx, req)
		res.User = large
		return res, err
	}
	plain := serve(t, h, request{method: "GET", path: connectGetURL(`{"userId":"7"}`)})
	f.get = func(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
		f.get = nil
		return f.GetUser(ctx, req)
	}
	zipped := serve(t, h, request{
		method: "GET", path: connectGetURL(`{"userId":"7"}`), header: map[string]string{"Accept-Encoding": "gzip"},
	})
	if zipped.Header().Get("Content-Encoding") != "gzip" || plain.Header().Get("Etag") == zipped.Header().Get("Etag") {
		t.Errorf("%v and %v", plain.Header(), zipped.Header())
	}
}

func TestErrorsHaveNoETag(t *testing.T) {
	f := &fake{get: func(context.Context, *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
		return nil, user.NewNotFoundError(7)
	}}
	for _, path := range []string{"/api/v1/users/7", connectGetURL(`{"userId":"7"}`)} {
		w := serve(t, both(t, f), request{method: "GET", path: path, header: map[string]string{"If-None-Match": "*"}})
		if w.Code != http.StatusNotFound || w.Header().Get("Etag") != "" || w.Body.Len() == 0 {
			t.Errorf("got %d %v", w.Code, w.Header())
		}
	}
}

func TestIfMatchBecomesTheEtag(t *testing.T) {
	f := &fake{}
	h := newHandler(t, f)
	filtered := serve(t, h, request{method: "GET", path: "/api/v1/users/7?fields=email"}).Header().Get("Etag")
	f.receivedMessages()
	whole := `"` + testEtag + `"`
	changed := &userv1.User{Email: "a@b.c"}
	for name, test := range map[string]struct {
		request

		ifMatch string
		want    proto.Message
	}{
		"PATCH":                {request{method: "PATCH", path: "/api/v1/users/7", body: `{"email":"a@b.c"}`}, whole, &userv1.UpdateUserRequest{UserId: 7, User: changed, UpdateMask: mask("email"), Etag: testEtag}},
		"PATCH, said twice":    {request{method: "PATCH", path: "/api/v1/users/7?etag=" + testEtag, body: `{"email":"a@b.c"}`}, whole, &userv1.UpdateUserRequest{UserId: 7, User: changed, UpdateMask: mask("email"), Etag: testEtag}},
		"PATCH, star":          {request{method: "PATCH", path: "/api/v1/users/7", body: `{"email":"a@b.c"}`}, "*", &userv1.UpdateUserRequest{UserId: 7, User: changed, UpdateMask: mask("email")}},
		"PATCH, filtered":      {request{method: "PATCH", path: "/api/v1/users/7", body: `{"email":"a@b.c"}`}, filtered, &userv1.UpdateUserRequest{UserId: 7, User: changed, UpdateMask: mask("email"), Etag: testEtag}},
		"DELETE":               {request{method: "DELETE", path: "/api/v1/users/7"}, whole, &userv1.DeleteUserRequest{UserId: 7, Etag: testEtag}},
		"undelete":             {request{method: "POST", path: "/api/v1/users/7:undelete", body: ` { } `}, whole, &userv1.UndeleteUserRequest{UserId: 7, Etag: testEtag}},
		"undelete, no body":    {request{method: "POST", path: "/api/v1/users/7:undelete"}, whole, &userv1.UndeleteUserRequest{UserId: 7, Etag: testEtag}},
		"undelete, more":       {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{"requestId":"r"}`}, whole, &userv1.UndeleteUserRequest{UserId: 7, Etag: testEtag, RequestId: "r"}},
		"undelete, compressed": {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{"requestId":"r"}`, gzip: true}, whole, &userv1.UndeleteUserRequest{UserId: 7, Etag: testEtag, RequestId: "r"}},
		"undelete, said twice": {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{"etag":"` + testEtag + `"}`}, whole, &userv1.UndeleteUserRequest{UserId: 7, Etag: testEtag}},
		"undelete, star":       {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{}`}, "*", &userv1.UndeleteUserRequest{UserId: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			test.header = map[string]string{"If-Match": test.ifMatch}
			w := serve(t, h, test.request)
			if w.Code != http.StatusOK {
				t.Fatalf("response = %d %s", w.Code, w.Body)
			}
			if received := f.receivedMessages(); len(received) != 1 || !proto.Equal(received[0], test.want) {
				t.Errorf("handler received %v", received)
			}
		})
	}
}

func TestUnsupportedPreconditions(t *testing.T) {
	f := &fake{}
	h := newHandler(t, f)
	for name, test := range map[string]struct {
		request

		field string
	}{
		"too many":          {request{method: "DELETE", path: "/api/v1/users/7", header: map[string]string{"If-Match": strings.Repeat(`"a",`, 17)}}, "If-Match"},
		"a bad one":         {request{method: "DELETE", path: "/api/v1/users/7", header: map[string]string{"If-Match": `"a", b`}}, "If-Match"},
		"star in a list":    {request{method: "DELETE", path: "/api/v1/users/7", header: map[string]string{"If-Match": `"a", *`}}, "If-Match"},
		"no quotes":         {request{method: "DELETE", path: "/api/v1/users/7", header: map[string]string{"If-Match": `a`}}, "If-Match"},
		"nothing in it":     {request{method: "DELETE", path: "/api/v1/users/7", header: map[string]string{"If-Match": `""`}}, "If-Match"},
		"of another kind":   {request{method: "DELETE", path: "/api/v1/users/7", header: map[string]string{"If-None-Match": `*`}}, "If-None-Match"},
		"no etag there":     {request{method: "PUT", path: "/api/v1/users/7/status", body: "{}", header: map[string]string{"If-Match": `"a"`}}, "If-Match"},
		"query differs":     {request{method: "PATCH", path: "/api/v1/users/7?etag=b", body: "{}", header: map[string]string{"If-Match": `"a"`}}, "etag"},
		"body differs":      {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{"etag":"b"}`, header: map[string]string{"If-Match": `"a"`}}, "etag"},
		"query not listed":  {request{method: "DELETE", path: "/api/v1/users/7?etag=c", header: map[string]string{"If-Match": `"a", W/"b"`}}, "etag"},
		"body is no object": {request{method: "POST", path: "/api/v1/users/7:undelete", body: `[]`, header: map[string]string{"If-Match": `"a"`}}, "body"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, h, test.request)
			p := readProblem(t, w.Body.Bytes())
			if w.Code != http.StatusBadRequest || len(p.fields) != 1 || p.fields[0] != test.field {
				t.Errorf("got %d %+v", w.Code, p)
			}
			if received := f.receivedMessages(); len(received) > 0 {
				t.Errorf("handler received %v", received)
			}
		})
	}
}

func TestETagMismatch(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		query  string
		header map[string]string
		status int
	}{
		"If-Match":        {mismatch(), "", map[string]string{"If-Match": `"1-a"`}, 412},
		"query":           {mismatch(), "?etag=1-a", nil, 409},
		"another reason":  {user.NewTakenError(user.EmailTaken, false), "", map[string]string{"If-Match": `"1-a"`}, 409},
		"no such user, *": {user.NewNotFoundError(7), "", map[string]string{"If-Match": `*`}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, newHandler(t, &fake{fail: test.err}), request{
				method: "PATCH", path: "/api/v1/users/7" + test.query, body: "{}", header: test.header,
			})
			want, _ := user.AsError(test.err)
			p := readProblem(t, w.Body.Bytes())
			if w.Code != test.status || p.reason != string(want.Reason) || p.code != int32(want.Code) || p.meta["etag"] != want.Metadata["etag"] {
				t.Errorf("got %d %+v", w.Code, p)
			}
		})
	}
}
