package server_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// hosted sends a GET with a Host header.
func hosted(t *testing.T, url, host string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// DNS rebinding: the admin listener on a loopback address rejects foreign hosts.
func TestAdminRejectsForeignHosts(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin())
	if status, text := fetch(t, s.AdminURL()+"/livez"); status != http.StatusOK || text != "alive\n" {
		t.Errorf("got %d %q", status, text)
	}
	if status, text := fetch(t, s.AdminURL()+"/readyz"); status != http.StatusOK || !strings.HasPrefix(text, "ready") {
		t.Errorf("got %d %q", status, text)
	}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:2112": 200, "127.0.0.1": 200, "127.1.2.3:80": 200, "[::1]": 200, "[::1]:2112": 200,
		"rebound.example.com": 421, "rebound.example.com:2112": 421, "192.0.2.1": 421, "localhost.example.com": 421, "0.0.0.0": 421,
	} {
		for _, path := range []string{"/metrics", "/debug/pprof/cmdline", "/readyz"} {
			if got := hosted(t, s.AdminURL()+path, host); got != want {
				t.Errorf("%s as %s: got %d, want %d", path, host, got, want)
			}
		}
	}
}

// Profiles are not served to pages of another origin, nor for more than a minute.
func TestProfileRestrictions(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin())
	const quick = "/debug/pprof/cmdline"
	for name, test := range map[string]struct {
		method, path string
		header       []string
		want         int
	}{
		"a tool":                        {"GET", quick, nil, 200},
		"an address typed in":           {"GET", quick, []string{"Sec-Fetch-Site", "none"}, 200},
		"a link of the index":           {"GET", quick, []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"a page of another site":        {"GET", quick, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a link of another site":        {"GET", quick, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 403},
		"a page of another port":        {"GET", quick, []string{"Sec-Fetch-Site", "same-site"}, 403},
		"a value that is not known":     {"GET", quick, []string{"Sec-Fetch-Site", "elsewhere"}, 403},
		"an image, by its referrer":     {"GET", quick, []string{"Referer", "http://elsewhere.example/page"}, 403},
		"a fetch, by its origin":        {"GET", quick, []string{"Origin", "http://elsewhere.example"}, 403},
		"a page without an origin":      {"GET", quick, []string{"Origin", "null"}, 403},
		"the index by another site":     {"GET", "/debug/pprof/", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a heap by another site":        {"GET", "/debug/pprof/heap", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a path that is cleaned":        {"GET", "/debug/pprof/./heap", []string{"Sec-Fetch-Site", "cross-site"}, 307},
		"a form":                        {"POST", "/debug/pprof/profile", nil, 405},
		"an hour of the processor":      {"GET", "/debug/pprof/profile?seconds=3600", nil, 400},
		"an hour of traces":             {"GET", "/debug/pprof/trace?seconds=3600", nil, 400},
		"an hour of the heap":           {"GET", "/debug/pprof/heap?seconds=61", nil, 400},
		"no number":                     {"GET", "/debug/pprof/trace?seconds=NaN", nil, 400},
		"infinite":                      {"GET", "/debug/pprof/trace?seconds=Inf", nil, 400},
		"less than nothing":             {"GET", "/debug/pprof/profile?seconds=-1", nil, 400},
		"twice, of which the first one": {"GET", "/debug/pprof/trace?seconds=3600&seconds=1", nil, 400},
		"a moment of traces":            {"GET", "/debug/pprof/trace?seconds=0.01", nil, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request, err := http.NewRequestWithContext(t.Context(), test.method, s.AdminURL()+test.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(test.header); i += 2 {
				request.Header.Set(test.header[i], test.header[i+1])
			}
			got, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = got.Body.Close()
			if got.StatusCode != test.want {
				t.Errorf("%s %s %v = %d, want %d", test.method, test.path, test.header, got.StatusCode, test.want)
			}
		})
	}
}

func TestReachableAdminListenerIsLogged(t *testing.T) {
	t.Parallel()
	for address, warned := range map[string]bool{"127.0.0.1:0": false, ":0": true} {
		var log lockedBuffer
		s := servertest.Start(t, servertest.Parallel(), servertest.Log(slog.NewTextHandler(&log, nil)),
			servertest.Config(func(c *server.Config) { c.AdminListen = address }))
		log.await(t, "admin server listening")
		_, port, err := net.SplitHostPort(strings.TrimPrefix(s.AdminURL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		// A reachable listener accepts all hosts.
		if got := hosted(t, "http://127.0.0.1:"+port+"/livez", "userd.internal"); (got == http.StatusOK) != warned {
			t.Errorf("%s: got %d", address, got)
		}
		s.Stop()
		if got := strings.Contains(log.String(), "admin listener reachable from other machines"); got != warned {
			t.Errorf("%s: warned %v", address, got)
		}
	}
}

// The public listener does not serve the admin paths.
func TestPublicListenerHasNoAdminPaths(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for _, path := range []string{"/metrics", "/livez", "/readyz", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
		if status, text := fetch(t, s.URL()+path); status != http.StatusNotFound {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
}

// heldStore blocks a read until letGo is closed.
type heldStore struct {
	user.Store

	entered chan struct{}
	letGo   chan struct{}
}

func (s *heldStore) Get(ctx context.Context, id int64) (*user.User, error) {
	close(s.entered)
	<-s.letGo
	return s.Store.Get(ctx, id)
}

// While a server waits for in-flight calls it is live but not ready.
func TestNotReadyWhileDraining(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	held := &heldStore{entered: make(chan struct{}), letGo: make(chan struct{})}
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin(), servertest.Log(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		servertest.Config(func(c *server.Config) { c.ShutdownTimeout = time.Minute }),
		servertest.Store(func(store user.Store) user.Store { held.Store = store; return held }))
	called := make(chan error, 1)
	go func() {
		_, err := s.GRPC().GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42})
		called <- err
	}()
	<-held.entered
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Stop()
	}()
	log.await(t, "mark not ready")
	status, text := fetch(t, s.AdminURL()+"/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "shutting down") {
		t.Errorf("got %d %s", status, text)
	}
	if status, _ := fetch(t, s.AdminURL()+"/livez"); status != http.StatusOK {
		t.Errorf("/livez = %d, want 200", status)
	}
	close(held.letGo)
	if err := <-called; connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("GetUser = %v, want NOT_FOUND", err)
	}
	<-stopped
}

// Hostile text in a request cannot forge or break log lines.
func TestHostileTextInLog(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := servertest.Start(t, servertest.Parallel(), servertest.Log(slog.NewTextHandler(&log, nil)))
	const hostile = "a\ntime=2026 level=ERROR msg=forged \x1b[2J\u202e\u2028"
	_, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{
		Username: "ada", Email: "ada@example.com", RequestId: hostile,
	})
	wantError(t, err, connect.CodeInvalidArgument, user.InvalidField)
	if status, _ := fetch(t, s.URL()+"/%0atime=2026%20level=ERROR%20msg=forged%1b%5b2J%e2%80%ae"); status != http.StatusNotFound {
		t.Errorf("got %d", status)
	}
	log.await(t, `msg="finished request"`)
	s.Stop()
	begins := regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\S+ level=(INFO|WARN) msg=`)
	for line := range strings.Lines(log.String()) {
		if !begins.MatchString(line) || strings.ContainsAny(line, "\x1b\u202e\u2028") {
			t.Errorf("got %q", line)
		}
	}
	if got := strings.Count(log.String(), "forged"); got < 2 {
		t.Errorf("hostile text is in %d lines, want at least 2\n%s", got, &log)
	}
}

// A request that net/http rejects before a handler runs is counted and logged as an invalid connection.
func TestInvalidConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin(), servertest.Log(slog.NewTextHandler(&log, nil)))
	for _, sent := range []string{
		"this is not HTTP\r\n\r\n",
		"GET / HTTP/9.9\r\n\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
		"\x16\x03\x01\x00\x05hello\n\n",
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: rot13\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 256<<10) + "\r\n\r\n",
		"", // port scan
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	} {
		sendRaw(t, s.Addr(), sent)
	}
	lines := func(text string) int { return strings.Count(text, "connection without valid request") }
	log.awaitAll(t, func(text string) bool { return lines(text) == 7 }) // counted before it is logged
	_, metrics := fetch(t, s.AdminURL()+"/metrics")
	if want := "userd_connections_invalid_total 7\n"; !strings.Contains(metrics, want) {
		t.Errorf("metrics have no %s", want)
	}
	s.Stop()
	if got := lines(log.String()); got != 7 {
		t.Errorf("%d lines\n%s", got, &log)
	}
	for reason, want := range map[string]int{"expected HTTP, got PROXY protocol": 2, "expected HTTP, got TLS": 1} {
		if got := strings.Count(log.String(), reason); got != want {
			t.Errorf("%d lines with %q, want %d\n%s", got, reason, want, &log)
		}
	}
}

// sendRaw sends bytes and returns when the server has closed the connection.
func sendRaw(t *testing.T, addr, text string) {
	t.Helper()
	dialing, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(dialing, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() {
		_, _ = io.WriteString(conn, text)
		if half, ok := conn.(*net.TCPConn); ok && text == "" {
			_ = half.CloseWrite()
		}
	}()
	_, _ = io.Copy(io.Discard, conn)
}
