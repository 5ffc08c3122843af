package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// --reflection sets the access to reflection.
func TestReflectionAccess(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string][2]connect.Code{ // anonymous and authenticated
		"":        {connect.CodeUnauthenticated, 0},
		"callers": {connect.CodeUnauthenticated, 0},
		"open":    {0, 0},
		"off":     {connect.CodeUnauthenticated, connect.CodePermissionDenied},
	} {
		g := startGuarded(t, servertest.Parallel(), servertest.Config(func(c *server.Config) { c.Reflection = setting }))
		for i, token := range []string{"", g.token(t, "ann", time.Hour)} {
			stream := grpcreflect.NewClient(g.as(true, token), "http://userd.test", connect.WithGRPC()).NewStream(t.Context())
			_, err := stream.ListServices()
			code := connect.Code(0)
			if err != nil {
				code = connect.CodeOf(err)
			}
			if code != want[i] {
				t.Errorf("%q: got %v, want %v", setting, err, want[i])
			}
			_, _ = stream.Close()
		}
	}
}

// The OpenAPI document is disabled with reflection, also by "callers" without authentication on an
// address that is not loopback.
func TestDocumentFollowsReflection(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change    func(*server.Config)
		documents bool
		reflects  bool
	}{
		"open, loopback":      {func(*server.Config) {}, true, true},
		"callers, loopback":   {func(c *server.Config) { c.Reflection = "callers" }, true, true},
		"off":                 {func(c *server.Config) { c.Reflection = "off" }, false, false},
		"everywhere":          {func(c *server.Config) { c.Listen, c.InsecureNoAuth = ":0", true }, false, false},
		"callers, everywhere": {func(c *server.Config) { c.Listen, c.InsecureNoAuth, c.Reflection = ":0", true, "callers" }, false, false},
		"open, everywhere":    {func(c *server.Config) { c.Listen, c.InsecureNoAuth, c.Reflection = ":0", true, "open" }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, servertest.Parallel(), servertest.Config(test.change))
			status, _ := get(t, s.HTTP(false), "http://userd.test/openapi.yaml")
			if want := map[bool]int{true: 200, false: 404}[test.documents]; status != want {
				t.Errorf("the document: got %d, want %d", status, want)
			}
			_, page := get(t, s.HTTP(false), "http://userd.test/")
			if strings.Contains(page, "openapi.yaml") != test.documents {
				t.Errorf("the page says\n%s", page)
			}
			stream := grpcreflect.NewClient(s.HTTP(true), "http://userd.test", connect.WithGRPC()).NewStream(t.Context())
			if _, err := stream.ListServices(); (err == nil) != test.reflects {
				t.Errorf("reflection: %v", err)
			}
			_, _ = stream.Close()
		})
	}
}

func get(t *testing.T, client *http.Client, url string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
