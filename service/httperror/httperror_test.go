package httperror_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/user"
)

func TestWriteInEachProtocol(t *testing.T) {
	t.Parallel()
	err := user.NewOverloadedError()
	for name, c := range map[string]struct {
		path, contentType string
		status            int
		header, body      string // header: name and value
	}{
		"grpc":     {path: "/user.v1.UserService/GetUser", contentType: "application/grpc", status: 200, header: "Grpc-Status: 14"},
		"grpc-web": {path: "/user.v1.UserService/GetUser", contentType: "application/grpc-web+proto", status: 200, header: "Grpc-Status: 14"},
		"connect":  {path: "/user.v1.UserService/GetUser", contentType: "application/json", status: 503, body: `"code":"unavailable"`},
		"connect stream": {
			path: "/user.v1.UserService/GetUser", contentType: "application/connect+json", status: 200, body: `"code":"unavailable"`,
		},
		"rest": {path: "/api/v1/users/1", contentType: "application/json", status: 503, header: "Cache-Control: no-store", body: `"reason":"OVERLOADED"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, c.path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", c.contentType)
			w := httptest.NewRecorder()
			httperror.Write(w, r, err)
			res := w.Result()
			body := strings.ReplaceAll(w.Body.String(), `": "`, `":"`)
			key, value, _ := strings.Cut(c.header, ": ")
			if res.StatusCode != c.status || res.Header.Get(key) != value || !strings.Contains(body, c.body) {
				t.Errorf("response = %d %v %s, want %d, header %q, body with %s", res.StatusCode, res.Header, body, c.status, c.header, c.body)
			}
			if got := res.Header.Get("Connection"); got != "close" {
				t.Errorf("Connection = %q, want close: the body was not read", got)
			}
		})
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]int{"application/grpc": 200, "application/json": 404, "text/plain": 404} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/user.v1.UserService/Unknown", http.NoBody)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		httperror.NotFound(w, r)
		if w.Code != want {
			t.Errorf("NotFound(%s) = %d, want %d", contentType, w.Code, want)
		}
	}
}
