package server_test

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// DNS rebinding: requests with a foreign Host are rejected on all paths and on the admin listener.
func TestForeignHostIsRejected(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin(), servertest.Config(func(c *server.Config) {
		c.AllowHost = append(c.AllowHost, "Users.example.com")
	}))
	operators := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(operators.CloseIdleConnections)
	for host, own := range map[string]bool{
		"localhost": true, "localhost:80": true, "LocalHost.:80": true, "app.localhost": true,
		"127.0.0.1": true, "127.7.7.7:8080": true, "[::1]": true, "[::1]:80": true, "[::ffff:127.0.0.1]": true,
		"userd.test": true, "users.example.com:8080": true, // allowed
		"evil.example": false, "evil.example:8080": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
		"evillocalhost": false, "0.0.0.0:80": false, "192.0.2.1": false, "[2001:db8::1]:80": false, "a.users.example.com": false,
	} {
		t.Run(host, func(t *testing.T) {
			for _, http2 := range []bool{false, true} {
				wantStatus(t, s.HTTP(http2), http.MethodPost, "http://"+host+userv1connect.UserServiceListUsersProcedure, host, own, http.StatusForbidden)
			}
			wantStatus(t, operators, http.MethodGet, s.AdminURL()+"/livez", host, own, http.StatusMisdirectedRequest)
			client := userv1connect.NewUserServiceClient(s.HTTP(true), "http://"+host, connect.WithGRPC())
			_, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{})
			if !own {
				wantError(t, err, connect.CodePermissionDenied, user.HostNotAllowed)
			}
			if refused := connect.CodeOf(err) == connect.CodePermissionDenied && strings.Contains(err.Error(), "expected localhost"); err != nil && !refused || (err == nil) != own {
				t.Errorf("gRPC: got %v", err)
			}
		})
	}
}

// With authentication every Host is accepted.
func TestAnyHostWithAuthentication(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	client := userv1connect.NewUserServiceClient(g.HTTP(true), "http://users.example.org", connect.WithGRPC())
	_, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{})
	wantError(t, err, connect.CodeUnauthenticated, user.CredentialsMissing)
}

// wantStatus sends a request like a browser for a page of the host.
func wantStatus(t *testing.T, client *http.Client, method, at, host string, own bool, refused int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, at, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Origin", "http://"+host)
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	want := refused
	if own {
		want = http.StatusOK
	}
	if response.StatusCode != want {
		t.Errorf("%s: got %d, want %d", at, response.StatusCode, want)
	}
}
