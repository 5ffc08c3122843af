package server_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// spoken is a protocol for requests that fail.
type spoken struct {
	name, protocol, path, contentType string
	http2, enveloped                  bool
	procedure                         bool // the path is a procedure
}

var spokenWays = []spoken{
	{name: "grpc", protocol: "grpc", path: "/user.v1.UserService/CreateUser", contentType: "application/grpc", http2: true, enveloped: true, procedure: true},
	{name: "web", protocol: "grpcweb", path: "/user.v1.UserService/CreateUser", contentType: "application/grpc-web+proto", enveloped: true, procedure: true},
	{name: "connect", protocol: "connect", path: "/user.v1.UserService/CreateUser", contentType: "application/proto", procedure: true},
	{name: "stream", protocol: "connect", path: "/user.v1.UserService/BatchUpdateUsers", contentType: "application/connect+proto", http2: true, enveloped: true, procedure: true},
	{name: "rest", protocol: "rest", path: "/api/v1/users", contentType: "application/json"},
}

// body returns a body of one message in the protocol.
func (w *spoken) body(message string) io.Reader {
	if !w.enveloped {
		return strings.NewReader(message)
	}
	prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return strings.NewReader(string(prefix) + message)
}

// ask sends an invalid message and waits for the response.
func (w *spoken) ask(t *testing.T, g guarded, token, message string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://userd.test"+w.path, w.body(message))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", w.contentType)
	request.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	response, err := g.as(w.http2, token).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
}

// linesOf returns the log lines of a protocol, path and code.
func linesOf(t *testing.T, text, protocol, path, code string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		at := fields["path"]
		if at == nil {
			at = fields["procedure"]
		}
		if (fields["msg"] == "finished request" || fields["msg"] == "finished call") &&
			fields["protocol"] == protocol && at == path && fields["code"] == code {
			found = append(found, fields)
		}
	}
	return found
}

// Every failed request has exactly one log line, over all protocols.
func TestFailedRequestsAreLogged(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	g := startGuarded(t, servertest.Parallel(), servertest.Admin(), servertest.Log(slog.NewJSONHandler(&log, nil)),
		servertest.Config(func(c *server.Config) { c.MaxMessageBytes = 4 << 10 }))
	token := g.token(t, "ann", time.Hour, auth.UsersWrite, auth.UsersRead)
	for i := range spokenWays {
		w := &spokenWays[i]
		w.ask(t, g, token, "\xff\xff\xff")
		w.ask(t, g, token, strings.Repeat("x", 5<<10))
		w.ask(t, g, "", "\xff\xff\xff")
	}
	callers := map[string]any{"invalid_argument": "ann", "resource_exhausted": "ann", "unauthenticated": nil}
	// A request is counted, then logged, after its response.
	log.awaitAll(t, func(text string) bool {
		for i := range spokenWays {
			for code := range callers {
				if len(linesOf(t, text, spokenWays[i].protocol, spokenWays[i].path, code)) == 0 {
					return false
				}
			}
		}
		return true
	})
	_, metrics := fetch(t, g.AdminURL()+"/metrics")
	g.Stop()
	for i := range spokenWays {
		w := &spokenWays[i]
		for code, caller := range callers {
			lines := linesOf(t, log.String(), w.protocol, w.path, code)
			if len(lines) != 1 {
				t.Errorf("%s, %s: %d lines\n%s", w.name, code, len(lines), &log)
				continue
			}
			line := lines[0]
			if line["caller"] != caller || line["peer"] == nil || line["duration"] == nil ||
				(line["procedure"] == w.path) != w.procedure || line["caller_trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
				t.Errorf("%s, %s: got %v", w.name, code, line)
			}
			if version, _ := line["http"].(string); line["msg"] == "finished request" && !strings.HasPrefix(version, "HTTP/") {
				t.Errorf("%s, %s: got %v", w.name, code, line)
			}
		}
	}
	for _, want := range []string{
		`userd_requests_rejected_total{reason="MESSAGE_TOO_LARGE"} 5`, `userd_errors_total{reason="INVALID_FIELD"} 1`, // over REST
		`userd_http_unhandled_total{code="401",protocol="connect"} 2`, `userd_http_unhandled_total{code="401",protocol="rest"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics have no %s", want)
		}
	}
}

// Rejections by limits are logged once a second for each reason.
func TestRejectionLogIsSampled(t *testing.T) {
	t.Parallel()
	for i := range spokenWays {
		w := &spokenWays[i]
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			g := startGuarded(t, servertest.Parallel(), servertest.Log(slog.NewJSONHandler(&log, nil)),
				servertest.Config(func(c *server.Config) { c.MaxRequestsPerSecond, c.MaxRequestBurst = 1, 1 }))
			token := g.token(t, "ann", time.Hour, auth.UsersWrite)
			began := time.Now()
			const asked = 30
			for range asked {
				w.ask(t, g, token, "\xff\xff\xff")
			}
			longest := int(time.Since(began)/time.Second) + 1
			g.Stop()
			lines := linesOf(t, log.String(), w.protocol, w.path, "resource_exhausted")
			if len(lines) < 1 || len(lines) > longest {
				t.Fatalf("%d lines in %d s\n%s", len(lines), longest, &log)
			}
			if line := lines[0]; line["reason"] != "RATE_LIMITED" || line["caller"] != "ann" || line["msg"] != "finished request" {
				t.Errorf("got %v", line)
			}
		})
	}
}

// Pages and preflights do not count as failed calls, and unsupported protocols are client errors.
func TestPagesAreNotFailedCalls(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := servertest.Start(t, servertest.Parallel(), servertest.Admin(), servertest.Log(slog.NewJSONHandler(&log, nil)),
		servertest.Config(func(c *server.Config) { c.CORSOrigin = []string{"https://app.example.com"} }))
	send := func(method, path string, header http.Header) int {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://userd.test"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = header
		response, err := s.HTTP(false).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	for _, path := range []string{"/", "/openapi.yaml"} {
		if status := send(http.MethodGet, path, http.Header{}); status != http.StatusOK {
			t.Errorf("%s: got %d", path, status)
		}
	}
	preflight := http.Header{"Origin": {"https://app.example.com"}, "Access-Control-Request-Method": {"POST"}}
	if status := send(http.MethodOptions, "/user.v1.UserService/GetUser", preflight); status != http.StatusNoContent {
		t.Errorf("the preflight: got %d", status)
	}
	bidi := http.Header{"Content-Type": {"application/connect+proto"}}
	if status := send(http.MethodPost, "/user.v1.UserService/SyncUserStatus", bidi); status != http.StatusHTTPVersionNotSupported {
		t.Errorf("a bidi stream over HTTP/1.1: got %d", status)
	}
	log.await(t, `"status":505`)
	_, metrics := fetch(t, s.AdminURL()+"/metrics")
	s.Stop()
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "userd_http_unhandled_total") && !strings.HasSuffix(line, " 0\n") && !strings.Contains(line, `"505"`) {
			t.Errorf("got %s", line)
		}
	}
	if lines := linesOf(t, log.String(), "connect", "/user.v1.UserService/SyncUserStatus", "unimplemented"); len(lines) != 1 || lines[0]["level"] != "INFO" {
		t.Errorf("got %v\n%s", lines, &log)
	}
}

// REST calls are logged as REST although they use Connect in process, and a stream that ends at the
// deadline of its client is not logged as a warning.
func TestLogLinesHaveProtocol(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := servertest.Start(t, servertest.Parallel(), servertest.Log(slog.NewJSONHandler(&log, nil)))
	if status, _ := fetch(t, s.URL()+"/api/v1/users/42"); status != http.StatusNotFound {
		t.Errorf("got %d", status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	stream, err := s.GRPC().StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true})
	if err == nil {
		for stream.Receive() {
		}
		err = stream.Err()
		_ = stream.Close()
	}
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Fatal(err)
	}
	log.await(t, "StreamUserActivities")
	s.Stop()
	for procedure, want := range map[string][2]string{"GetUser": {"rest", "not_found"}, "StreamUserActivities": {"grpc", ""}} {
		line := lineOf(t, &log, procedure)
		// The deadline or the disconnect may be detected first.
		if line["protocol"] != want[0] || line["level"] != "INFO" || want[1] != "" && line["code"] != want[1] {
			t.Errorf("got %v", line)
		}
	}
}
