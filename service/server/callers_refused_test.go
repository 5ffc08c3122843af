package server_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// Repeated authentication failures are rate limited by address; authenticated callers of the same address
// are not affected.
func TestAuthFailuresAreRateLimited(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel(), servertest.Config(func(c *server.Config) {
		c.MaxRequestsPerSecond, c.MaxRequestBurst = 1, 3
	}))
	good := g.grpc(g.token(t, "ann", time.Hour, auth.UsersRead))
	bad := g.grpc("nonsense")
	var slowed error
	for range 100 {
		_, err := bad.ListUsers(t.Context(), &userv1.ListUsersRequest{})
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			slowed = err
			break
		}
	}
	wantError(t, slowed, connect.CodeResourceExhausted, user.RateLimited)
	response, body := g.rest(t, "nonsense", resource{method: "GET", path: "/api/v1/users"})
	if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" {
		t.Errorf("REST = %d %s, want 429 with Retry-After", response.StatusCode, body)
	}
	if _, err := good.ListUsers(t.Context(), &userv1.ListUsersRequest{}); err != nil {
		t.Errorf("authenticated caller: %v, want no error", err)
	}
}

// A server without keys is not ready.
func TestNotReadyWithoutKeys(t *testing.T) {
	t.Parallel()
	issuer := httptest.NewServer(http.NotFoundHandler())
	defer issuer.Close()
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin(), servertest.Log(slog.DiscardHandler), servertest.Config(func(c *server.Config) {
		c.JWTJWKS, c.JWTIssuer, c.JWTAudience = issuer.URL+"/keys", "i", "a"
	}))
	asker := &http.Client{Timeout: 20 * time.Second}
	defer asker.CloseIdleConnections()
	status, body := get(t, asker, s.AdminURL()+"/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "callers: JWKS is missing or too old") {
		t.Errorf("got %d %s", status, body)
	}
	if _, body := get(t, asker, s.AdminURL()+"/metrics"); !strings.Contains(body, "userd_jwks_age_seconds +Inf") {
		t.Error("userd_jwks_age_seconds without keys is not +Inf")
	}
	g := startGuarded(t, servertest.Parallel(), servertest.Admin())
	if status, body := get(t, asker, g.AdminURL()+"/readyz"); status != http.StatusOK || strings.Contains(body, "callers") {
		t.Errorf("with keys: got %d %s", status, body)
	}
	if _, body := get(t, asker, g.AdminURL()+"/metrics"); !strings.Contains(body, "userd_jwks_age_seconds ") {
		t.Error("metrics have no userd_jwks_age_seconds")
	}
}

// Disabled authentication is logged at start, as a warning if other machines can connect.
func TestDisabledAuthIsLogged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*server.Config)
		want   string
	}{
		"loopback":   {func(*server.Config) {}, "level=INFO msg=\"authentication disabled"},
		"everywhere": {func(c *server.Config) { c.Listen, c.InsecureNoAuth = ":0", true }, "level=WARN msg=\"authentication disabled"},
	} {
		var log bytes.Buffer
		s := servertest.Start(t, servertest.Parallel(), servertest.Log(slog.NewTextHandler(&log, nil)), servertest.Config(test.change))
		s.Stop()
		if !strings.Contains(log.String(), test.want) {
			t.Errorf("%s: the log has\n%s", name, log.String())
		}
	}
	var log bytes.Buffer
	g := startGuarded(t, servertest.Parallel(), servertest.Log(slog.NewTextHandler(&log, nil)))
	g.Stop()
	if strings.Contains(log.String(), "authentication disabled") {
		t.Errorf("with tokens: the log has\n%s", log.String())
	}
}
