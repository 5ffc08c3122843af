package rest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/rpc"
	"github.com/yourorg/userservice/service/user"
)

// An invalid request gets status 400 with the field, and does not reach an RPC.
func TestInvalidRequests(t *testing.T) {
	f := &fake{}
	h := newHandler(t, f)
	latin1 := string([]byte{'"', 0xff, '"'})
	for name, test := range map[string]struct {
		request

		fields []string
	}{
		"path: no number":             {request{method: "GET", path: "/api/v1/users/abc"}, []string{"user_id"}},
		"path: beyond 64 bits":        {request{method: "GET", path: "/api/v1/users/9223372036854775808"}, []string{"user_id"}},
		"path: null":                  {request{method: "GET", path: "/api/v1/users/null"}, []string{"user_id"}},
		"path: zeros before":          {request{method: "GET", path: "/api/v1/users/007"}, []string{"user_id"}},
		"path: escaped twice":         {request{method: "GET", path: "/api/v1/users/%2537"}, []string{"user_id"}},
		"path: stream":                {request{method: "GET", path: "/api/v1/users/abc/activities", header: map[string]string{"Accept": "text/event-stream"}}, []string{"user_id"}},
		"query: unknown":              {request{method: "GET", path: "/api/v1/users?nope=1&zip=2"}, []string{"nope", "zip"}},
		"query: unknown beside good":  {request{method: "GET", path: "/api/v1/users/7?fields=email&x="}, []string{"x"}},
		"query: no number":            {request{method: "GET", path: "/api/v1/users?pageSize=ten"}, []string{"page_size"}},
		"query: null":                 {request{method: "GET", path: "/api/v1/users?pageSize=null"}, []string{"page_size"}},
		"query: empty":                {request{method: "GET", path: "/api/v1/users?page_size="}, []string{"page_size"}},
		"query: beyond 32 bits":       {request{method: "GET", path: "/api/v1/users?page_size=2147483648"}, []string{"page_size"}},
		"query: no bool":              {request{method: "GET", path: "/api/v1/users?showDeleted=yes"}, []string{"show_deleted"}},
		"query: no enum":              {request{method: "GET", path: "/api/v1/users/7/activities?order=UP"}, []string{"order"}},
		"query: twice":                {request{method: "GET", path: "/api/v1/users?pageSize=1&pageSize=2"}, []string{"page_size"}},
		"query: by both names":        {request{method: "GET", path: "/api/v1/users?pageSize=1&page_size=2"}, []string{"page_size"}},
		"query: not UTF-8":            {request{method: "GET", path: "/api/v1/users?filter=%ff"}, []string{"filter"}},
		"query: half an escape":       {request{method: "GET", path: "/api/v1/users?filter=%f"}, []string{"query"}},
		"query: semicolon":            {request{method: "GET", path: "/api/v1/users?filter=a;b"}, []string{"query"}},
		"query: against the path":     {request{method: "GET", path: "/api/v1/users/7?user_id=8"}, []string{"user_id"}},
		"query: against the body":     {request{method: "PATCH", path: "/api/v1/users/7?user.email=x", body: "{}"}, []string{"user.email"}},
		"query: the body itself":      {request{method: "PATCH", path: "/api/v1/users/7?user=x", body: "{}"}, []string{"user"}},
		"query: beside a whole body":  {request{method: "POST", path: "/api/v1/users?username=x", body: "{}"}, []string{"query"}},
		"query: list element":         {request{method: "GET", path: "/api/v1/users:batchGet?userIds=1,x"}, []string{"user_ids[1]"}},
		"query: empty mask":           {request{method: "PATCH", path: "/api/v1/users/7?updateMask=", body: "{}"}, []string{"update_mask"}},
		"query: Connect":              {request{method: "GET", path: "/api/v1/users?connect=v1&encoding=json&message=%7B%7D"}, []string{"connect", "encoding", "message"}},
		"query: stream's on the list": {request{method: "GET", path: "/api/v1/users/7/activities?progress=true"}, []string{"progress"}},
		"query: no time": {request{method: "GET", path: "/api/v1/users/7/activities?since=yesterday",
			header: map[string]string{"Accept": "application/x-ndjson"}}, []string{"since"}},
		"query: a time before all": {request{method: "GET", path: "/api/v1/users/7/activities?since=0000-01-01T00:00:00Z",
			header: map[string]string{"Accept": "application/x-ndjson"}}, []string{"since"}},
		"query: a time with ten digits of a second": {request{method: "GET", path: "/api/v1/users/7/activities?since=2026-01-31T12:34:56.0123456789Z",
			header: map[string]string{"Accept": "application/x-ndjson"}}, []string{"since"}},
		"query: a time with an escape": {request{method: "GET", path: "/api/v1/users/7/activities?since=%222026-01-31T12:34:56Z",
			header: map[string]string{"Accept": "application/x-ndjson"}}, []string{"since"}},
		"query: unknown in a stream": {request{method: "GET", path: "/api/v1/users/7/activities?pageSize=1",
			header: map[string]string{"Accept": "text/event-stream"}}, []string{"pageSize"}},
		"header: last event": {request{method: "GET", path: "/api/v1/users:watchStatus?all=true",
			header: map[string]string{"Last-Event-ID": "12", "Accept": "application/x-ndjson"}}, []string{"Last-Event-ID"}},
		"header: last event of no number": {request{method: "GET", path: "/api/v1/users:watchStatus?all=true",
			header: map[string]string{"Last-Event-ID": "e:x", "Accept": "application/x-ndjson"}}, []string{"Last-Event-ID"}},
		"header: last event without epoch": {request{method: "GET", path: "/api/v1/users:watchStatus?all=true",
			header: map[string]string{"Last-Event-ID": ":1", "Accept": "application/x-ndjson"}}, []string{"Last-Event-ID"}},
		"header: timeout":   {request{method: "GET", path: "/api/v1/users/7", header: map[string]string{"X-Server-Timeout": "NaN"}}, []string{"X-Server-Timeout"}},
		"header: timeout 2": {request{method: "GET", path: "/api/v1/users/7", header: map[string]string{"X-Server-Timeout": "-1"}}, []string{"X-Server-Timeout"}},
		"body: broken":      {request{method: "POST", path: "/api/v1/users", body: `{"username":`}, []string{"body"}},
		"body: a list":      {request{method: "POST", path: "/api/v1/users", body: `[]`}, []string{"body"}},
		"body: null":        {request{method: "POST", path: "/api/v1/users", body: `null`}, []string{"body"}},
		"body: two":         {request{method: "POST", path: "/api/v1/users", body: `{}{}`}, []string{"body"}},
		"body: not UTF-8":   {request{method: "POST", path: "/api/v1/users", body: `{"username":` + latin1 + `}`}, []string{"username"}},
		"body: unknown":     {request{method: "POST", path: "/api/v1/users", body: `{"nope":1}`}, []string{"nope"}},
		"body: wrong kind":  {request{method: "POST", path: "/api/v1/users", body: `{"validateOnly":"yes"}`}, []string{"validate_only"}},
		"body: twice":       {request{method: "POST", path: "/api/v1/users", body: `{"username":"a","username":"b"}`}, []string{"username"}},
		"body: unknown in a field": {request{method: "PATCH", path: "/api/v1/users/7", body: `{"nope":1}`},
			[]string{"nope"}},
		"body: broken on a path": {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{"etag"`}, []string{"body"}},
		"body: against the path": {request{method: "PUT", path: "/api/v1/users/7/status", body: `{"userId":"8"}`}, []string{"user_id"}},
		"body: missing":          {request{method: "PATCH", path: "/api/v1/users/7"}, []string{"user"}},
		"body: not wanted":       {request{method: "DELETE", path: "/api/v1/users/7", body: `{"etag":"1-a"}`}, []string{"body"}},
		"body: not wanted on GET": {request{method: "GET", path: "/api/v1/users", body: `{}`},
			[]string{"body"}},
		"body: no gzip": {request{method: "POST", path: "/api/v1/users", body: `{}`, header: map[string]string{"Content-Encoding": "gzip"}}, []string{"body"}},
		"body: no gzip on a path": {request{method: "POST", path: "/api/v1/users/7:undelete", body: `{}`,
			header: map[string]string{"Content-Encoding": "gzip"}}, []string{"body"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, h, test.request)
			if w.Code != http.StatusBadRequest {
				t.Fatalf("response = %d %s", w.Code, w.Body)
			}
			p := readProblem(t, w.Body.Bytes())
			if p.code != int32(code.Code_INVALID_ARGUMENT) || p.reason != string(user.InvalidField) || !slices.Equal(p.fields, test.fields) {
				t.Errorf("error = %+v", p)
			}
			if received := f.receivedMessages(); len(received) > 0 {
				t.Errorf("handler received %v", received)
			}
		})
	}
}

func TestTruncatedGzip(t *testing.T) {
	f := &fake{}
	h := newHandler(t, f)
	data := packed(t, []byte(`{"username":"ann"}`))
	for _, path := range []string{"/api/v1/users", "/api/v1/users/7:undelete"} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, bytes.NewReader(data[:len(data)-3]))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Content-Encoding", "gzip")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || readProblem(t, w.Body.Bytes()).reason != string(user.InvalidField) {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
	if received := f.receivedMessages(); len(received) > 0 {
		t.Errorf("handler received %v", received)
	}
}

// endless is an endless body that counts the bytes read.
type endless struct{ receivedMessages int }

func (e *endless) Read(data []byte) (int, error) {
	for i := range data {
		data[i] = ' '
	}
	e.receivedMessages += len(data)
	return len(data), nil
}

func TestMessageLimit(t *testing.T) {
	const limit = 4096
	f := &fake{}
	h := newHandler(t, f, func(o *rest.Options) { o.MaxMessageBytes = limit })
	bomb := packed(t, bytes.Repeat([]byte(" "), 8<<20))
	h16 := newHandler(t, f, func(o *rest.Options) { o.MaxMessageBytes = int64(2 * len(bomb)) })
	fits := `{"username":"` + strings.Repeat("a", limit-len(`{"username":""}`)) + `"}`
	for name, test := range map[string]struct {
		handler http.Handler
		path    string
		body    io.Reader
		gzip    bool
		status  int
	}{
		"at the limit":              {h, "/api/v1/users", strings.NewReader(fits), false, 200},
		"at the limit, compressed":  {h, "/api/v1/users", bytes.NewReader(packed(t, []byte(fits))), true, 200},
		"one beyond":                {h, "/api/v1/users", strings.NewReader(fits + " "), false, 413},
		"one beyond, compressed":    {h, "/api/v1/users", bytes.NewReader(packed(t, []byte(fits+" "))), true, 413},
		"without an end":            {h, "/api/v1/users", &endless{}, false, 413},
		"without an end, on a path": {h, "/api/v1/users/7:undelete", &endless{}, false, 413},
		"bomb":                      {h16, "/api/v1/users", bytes.NewReader(bomb), true, 413},
		"bomb on a path":            {h16, "/api/v1/users/7:undelete", bytes.NewReader(bomb), true, 413},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), "POST", test.path, test.body)
			r.Header.Set("Content-Type", "application/json")
			if test.gzip {
				r.Header.Set("Content-Encoding", "gzip")
			}
			w := httptest.NewRecorder()
			test.handler.ServeHTTP(w, r)
			if w.Code != test.status {
				t.Fatalf("response = %d %s", w.Code, w.Body)
			}
			received := f.receivedMessages()
			if test.status == http.StatusOK {
				return
			}
			p := readProblem(t, w.Body.Bytes())
			if p.code != int32(code.Code_RESOURCE_EXHAUSTED) || p.reason != string(user.MessageTooLarge) || p.meta["limit"] == "" {
				t.Errorf("error = %+v", p)
			}
			if len(received) > 0 {
				t.Errorf("handler received %v", received)
			}
			if e, ok := test.body.(*endless); ok && e.receivedMessages > 4*limit {
				t.Errorf("%d bytes were read", e.receivedMessages)
			}
		})
	}
}

// A declared Content-Length allocates no memory.
func TestDeclaredLengthAllocatesNothing(t *testing.T) {
	h := newHandler(t, &fake{}, func(o *rest.Options) { o.MaxMessageBytes = 64 << 20 })
	perCall := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/users", strings.NewReader("{}"))
			r.ContentLength = 64 << 20
			r.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}).AllocedBytesPerOp()
	if perCall > 1<<20 {
		t.Errorf("%d bytes a call", perCall)
	}
}

// A JSON response may exceed the message limit, which applies to the binary form.
func TestLargeJSONResponse(t *testing.T) {
	f := &fake{}
	f.list = func(context.Context, *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
		users := make([]*userv1.User, 100)
		for i := range users {
			users[i] = testUser(int64(i + 1))
			users[i].Metadata = map[string]string{"k": strings.Repeat("\x01", 500)}
		}
		return &userv1.ListUsersResponse{Users: users}, nil
	}
	want, err := f.list(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	limit := int64(proto.Size(want))
	h := newHandler(t, f, func(o *rest.Options) { o.MaxMessageBytes = limit })
	w := serve(t, h, request{method: "GET", path: "/api/v1/users"})
	if w.Code != http.StatusOK || int64(w.Body.Len()) < 3*limit {
		t.Fatalf("%d with %d bytes", w.Code, w.Body.Len())
	}
}

func TestErrorsHaveStatusAndDetails(t *testing.T) {
	for _, test := range []struct {
		err    *user.Error
		status int
		retry  string
	}{
		{user.NewFieldErrorf("filter", "bad"), 400, ""},
		{user.NewNotFoundError(7), 404, ""},
		{user.NewTakenError(user.EmailTaken, true), 409, ""},
		{user.NewDeletedError(7, 0), 400, ""},
		{&user.Error{Code: user.Aborted, Reason: user.EtagMismatch}, 409, ""},
		{user.NewPositionOutOfRangeError("e", 1, 2, "no"), 400, ""},
		{user.NewOverloadedError(), 503, "1"},
		{user.NewStoreFullError(), 429, "30"},
		{&user.Error{Code: user.Unauthenticated, Reason: user.CredentialsMissing}, 401, ""},
		{&user.Error{Code: user.PermissionDenied, Reason: user.PermissionMissing, Metadata: map[string]string{"permission": "p"}}, 403, ""},
		{&user.Error{Code: user.Internal, Reason: user.InternalError, Metadata: map[string]string{"incident": "i"}}, 500, ""},
		{&user.Error{Code: user.DeadlineExceeded}, 504, ""},
	} {
		t.Run(string(test.err.Reason), func(t *testing.T) {
			w := serve(t, newHandler(t, &fake{fail: test.err}), request{method: "GET", path: "/api/v1/users"})
			p := readProblem(t, w.Body.Bytes())
			if w.Code != test.status || w.Header().Get("Retry-After") != test.retry {
				t.Errorf("%d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
			}
			if p.code != int32(test.err.Code) || p.reason != string(test.err.Reason) || len(p.fields) != len(test.err.Violations) {
				t.Errorf("error = %+v", p)
			}
			for key, value := range test.err.Metadata {
				if p.meta[key] != value {
					t.Errorf("%s: got %q", key, p.meta[key])
				}
			}
		})
	}
}

// Errors that do not come from the service are not shown.
func TestInternalErrorsAreHidden(t *testing.T) {
	var logged bytes.Buffer
	h := newHandler(t, &fake{}, func(o *rest.Options) {
		o.Methods = rpc.UserService(&fake{fail: errors.New("open /var/secret")})
		o.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/secret")
			_, _ = io.WriteString(w, "/var/secret")
		})
		o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	})
	for _, accept := range []string{"application/json", "text/event-stream"} {
		logged.Reset()
		w := serve(t, h, request{method: "GET", path: "/api/v1/users/7/activities", header: map[string]string{"Accept": accept}})
		p := readProblem(t, w.Body.Bytes())
		if w.Code != http.StatusInternalServerError || p.reason != string(user.InternalError) || p.meta["incident"] == "" {
			t.Errorf("%s: got %d %+v", accept, w.Code, p)
		}
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("got %s", w.Body)
		}
		contains(t, logged.String(), p.meta["incident"])
	}
}

func TestCompression(t *testing.T) {
	f := &fake{list: func(context.Context, *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
		return &userv1.ListUsersResponse{NextPageToken: strings.Repeat("x", 2000)}, nil
	}}
	h := newHandler(t, f)
	for accept, want := range map[string]string{
		"gzip, br": "gzip", "gzip;q=0.5": "gzip", "*": "gzip", "gzip;q=0, *": "", "": "", "br": "",
	} {
		w := serve(t, h, request{method: "GET", path: "/api/v1/users", header: map[string]string{"Accept-Encoding": accept}})
		if got := w.Header().Get("Content-Encoding"); got != want {
			t.Errorf("%q: got %q", accept, got)
		}
		contains(t, strings.Join(w.Header()["Vary"], ","), "Accept-Encoding")
		head := serve(t, h, request{method: "HEAD", path: "/api/v1/users", header: map[string]string{"Accept-Encoding": accept}})
		for _, name := range []string{"Content-Encoding", "Content-Length"} { // a wrong length is worse than none
			if got, want := head.Header().Get(name), w.Header().Get(name); got != want {
				t.Errorf("HEAD with %q: got %s %q, want %q", accept, name, got, want)
			}
		}
	}
}
