package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

func TestPagesFromElsewhere(t *testing.T) {
	t.Parallel()
	const friend, stranger = "https://app.example.com", "https://evil.example.com"
	s := servertest.Start(t, servertest.Parallel(),
		servertest.Config(func(c *server.Config) { c.CORSOrigin = []string{friend} }))
	type result struct {
		status int
		header http.Header
	}
	ask := func(method, origin, wants string) result {
		request, err := http.NewRequestWithContext(t.Context(), method,
			"http://userd.test/user.v1.UserService/ListUsers", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if origin != "" {
			request.Header.Set("Origin", origin)
			request.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		if wants != "" {
			request.Header.Set("Access-Control-Request-Method", wants)
		}
		response, err := s.HTTP(false).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return result{response.StatusCode, response.Header}
	}
	if got := ask(http.MethodPost, "", ""); got.status != http.StatusOK {
		t.Errorf("no browser: got %v", got.status)
	}
	if got := ask(http.MethodPost, stranger, ""); got.status != http.StatusForbidden || got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("stranger: got %v %v", got.status, got.header)
	}
	if got := ask(http.MethodOptions, stranger, "POST"); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("stranger's preflight: got %v %v", got.status, got.header)
	}
	if got := ask(http.MethodPost, friend, ""); got.status != http.StatusOK ||
		got.header.Get("Access-Control-Allow-Origin") != friend ||
		!strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "Userd-Position") {
		t.Errorf("friend: got %v %v", got.status, got.header)
	}
	if got := ask(http.MethodOptions, friend, "PATCH"); got.status != http.StatusNoContent ||
		!strings.Contains(got.header.Get("Access-Control-Allow-Methods"), "PATCH") {
		t.Errorf("friend's preflight: got %v %v", got.status, got.header)
	} else if headers := got.header.Get("Access-Control-Allow-Headers"); !strings.Contains(headers, "Traceparent") || !strings.Contains(headers, "X-Request-Id") {
		t.Errorf("a page may not say which trace and request it is: got %s", headers)
	}
}
