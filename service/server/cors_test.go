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
	ask := func(method, origin, wants string) *http.Response {
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
		answer, err := s.HTTP(false).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer
	}
	if got := ask(http.MethodPost, "", ""); got.StatusCode != http.StatusOK {
		t.Errorf("no browser: got %v", got.Status)
	}
	if got := ask(http.MethodPost, stranger, ""); got.StatusCode != http.StatusForbidden || got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("stranger: got %v %v", got.Status, got.Header)
	}
	if got := ask(http.MethodOptions, stranger, "POST"); got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("stranger's preflight: got %v %v", got.Status, got.Header)
	}
	if got := ask(http.MethodPost, friend, ""); got.StatusCode != http.StatusOK ||
		got.Header.Get("Access-Control-Allow-Origin") != friend ||
		!strings.Contains(got.Header.Get("Access-Control-Expose-Headers"), "Userd-Position") {
		t.Errorf("friend: got %v %v", got.Status, got.Header)
	}
	if got := ask(http.MethodOptions, friend, "PATCH"); got.StatusCode != http.StatusNoContent ||
		!strings.Contains(got.Header.Get("Access-Control-Allow-Methods"), "PATCH") {
		t.Errorf("friend's preflight: got %v %v", got.Status, got.Header)
	}
}
