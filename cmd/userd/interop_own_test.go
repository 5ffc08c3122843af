//go:build interop

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ownCase is a case implemented here.
type ownCase struct {
	client, name, at string
	waits            bool
	run              func(front) error
}

func ownCases() []ownCase {
	return []ownCase{
		{client: "grpcurl", name: "kinds", at: "open", run: grpcurlKinds},
		{client: "grpcurl", name: "kinds", at: "nginx", run: grpcurlKinds},
		{client: "grpcurl", name: "kinds", at: "haproxy", run: grpcurlKinds},
		{client: "grpcurl", name: "kinds", at: "caddy", run: grpcurlKinds},
		{client: "grpcurl", name: "kinds", at: "nginx to a socket", run: grpcurlKinds},
		{client: "grpcurl", name: "no token", at: "nginx", run: grpcurlNoToken},
		{client: "http", name: "idle NDJSON", at: "nginx with its defaults", waits: true, run: idleNDJSON},
		{client: "http", name: "idle NDJSON", at: "haproxy", waits: true, run: idleNDJSON},
		{client: "http", name: "idle NDJSON", at: "caddy", waits: true, run: idleNDJSON},
		{client: "http", name: "host refused in the caller's protocol", at: "nginx with an unallowed name", run: hostRefused},
		{client: "http", name: "forwarded address in the log", at: "nginx", run: forwarded},
		{client: "http", name: "forwarded address in the log", at: "haproxy", run: forwarded},
		{client: "http", name: "forwarded address in the log", at: "caddy", run: forwarded},
		{client: "http", name: "forged address is not taken", at: "open", run: forged},
		{client: "http", name: "broken framing is the caller's", at: "open", run: brokenFraming},
		{client: "http", name: "message over the limit", at: "open", run: overLimit},
		{client: "http", name: "message over the limit", at: "nginx", run: overLimit},
		{client: "http", name: "message over the limit", at: "haproxy", run: overLimit},
		{client: "http", name: "message over the limit", at: "caddy", run: overLimit},
		{client: "http", name: "REST details", at: "open", run: restDetails},
	}
}

func (f front) client() *http.Client {
	transport := &http.Transport{}
	if f.from != "" {
		transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(f.from)}}).DialContext
	}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			panic(err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(text)
	}
	return &http.Client{Transport: transport}
}

type response struct {
	status int
	header http.Header
	body   string
}

// do makes a request with the token and additional headers, given as key-value pairs.
func (f front) do(method, path, body string, headers ...string) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, f.url+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	f.setHeaders(request, headers)
	client := f.client()
	defer client.CloseIdleConnections()
	got, err := client.Do(request)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = got.Body.Close() }()
	text, err := io.ReadAll(got.Body)
	return response{got.StatusCode, got.Header, string(text)}, err
}

func (f front) setHeaders(request *http.Request, headers []string) {
	if request.Method != http.MethodGet {
		request.Header.Set("Content-Type", "application/json")
	}
	if f.token != "" {
		request.Header.Set("Authorization", "Bearer "+f.token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
}

// createUser creates a user and returns its ID.
func (f front) createUser() (string, error) {
	name := fmt.Sprintf("http %d", time.Now().UnixNano())
	got, err := f.do(http.MethodPost, "/api/v1/users", fmt.Sprintf(`{"username":%q,"email":"%s@example.org"}`, name, strings.ReplaceAll(name, " ", ".")))
	if err != nil {
		return "", err
	}
	var created struct{ User struct{ UserID string } }
	if err := json.Unmarshal([]byte(got.body), &created); err != nil || created.User.UserID == "" {
		return "", fmt.Errorf("create: got %d %s", got.status, got.body)
	}
	return created.User.UserID, nil
}

// grpcurl runs grpcurl and returns its output.
func (f front) grpcurl(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	scheme, address, _ := strings.Cut(f.url, "://")
	flags := []string{"-plaintext"}
	if scheme == "https" {
		flags = []string{"-cacert", f.ca}
	}
	if f.token != "" {
		flags = append(flags, "-H", "authorization: Bearer "+f.token)
	}
	at := 0 // flags precede the address
	for at < len(args) && strings.HasPrefix(args[at], "-") {
		at += 2
	}
	argv := append(append(append(flags, args[:at]...), address), args[at:]...)
	cmd := exec.CommandContext(ctx, "../../.tools/bin/grpcurl", argv...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("grpcurl %q: %w\n%s", argv[len(flags):], err, out)
	}
	return string(out), nil
}

func grpcurlKinds(f front) error {
	if out, err := f.grpcurl("", "list"); err != nil || !strings.Contains(out, "user.v1.UserService") {
		return fmt.Errorf("list: %s: %w", out, err)
	}
	name := fmt.Sprintf("grpcurl %d", time.Now().UnixNano())
	out, err := f.grpcurl("", "-d", fmt.Sprintf(`{"username":%q,"email":"%s@example.org"}`, name, strings.ReplaceAll(name, " ", ".")), "user.v1.UserService/CreateUser")
	if err != nil {
		return err
	}
	var created struct{ User struct{ UserID string } }
	if err := json.Unmarshal([]byte(out), &created); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	id := created.User.UserID
	out, err = f.grpcurl("", "-d", `{"user_id":"`+id+`","replay_only":true}`, "user.v1.UserService/StreamUserActivities")
	if err != nil || !strings.Contains(out, "user.created") {
		return fmt.Errorf("server stream: %s: %w", out, err)
	}
	out, err = f.grpcurl(`{"user_id":"`+id+`","user":{"tags":["a"]}} {"user_id":"1","user":{"tags":["a"]}}`, "-d", "@", "user.v1.UserService/BatchUpdateUsers")
	if err != nil || !strings.Contains(out, `"updatedCount": 1`) {
		return fmt.Errorf("client stream: %s: %w", out, err)
	}
	out, err = f.grpcurl(`{"user_id":"`+id+`","status":"USER_STATUS_INACTIVE","client_seq":"1"} {"user_id":"`+id+`","client_seq":"2"}`, "-d", "@", "user.v1.UserService/SyncUserStatus")
	if err != nil || strings.Count(out, "USER_STATUS_INACTIVE") != 2 {
		return fmt.Errorf("bidi: %s: %w", out, err)
	}
	if out, err = f.grpcurl("", "-d", `{"user_id":"1"}`, "user.v1.UserService/GetUser"); err == nil || !strings.Contains(out, "USER_NOT_FOUND") {
		return fmt.Errorf("get missing user: %s", out)
	}
	return nil
}

func grpcurlNoToken(f front) error {
	f.token = ""
	out, err := f.grpcurl("", "list")
	if err == nil || !strings.Contains(out, "Unauthenticated") && !strings.Contains(out, "credentials required") {
		return fmt.Errorf("got %s", out)
	}
	return nil
}

// idleNDJSON expects an NDJSON stream to stay open for 70 s without rows.
func idleNDJSON(f front) error {
	id, err := f.createUser()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/api/v1/users/"+id+"/activities", http.NoBody)
	if err != nil {
		return err
	}
	f.setHeaders(request, []string{"Accept", "application/x-ndjson"})
	got, err := f.client().Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = got.Body.Close() }()
	noted := time.AfterFunc(70*time.Second, func() {
		_, _ = f.do(http.MethodPost, "/api/v1/users/"+id+"/activities", `{"action":"app.noted"}`) // the stream waits for its row
	})
	defer noted.Stop()
	for lines := bufio.NewScanner(got.Body); lines.Scan(); {
		if strings.Contains(lines.Text(), "app.noted") {
			return nil
		}
	}
	return errors.New("the stream ended before the row")
}

// hostRefused expects an error for a disallowed Host header in each protocol, and a log line.
func hostRefused(f front) error {
	rest, err := f.do(http.MethodGet, "/api/v1/users", "")
	if err != nil {
		return err
	}
	var status struct{ Details []map[string]any }
	if json.Unmarshal([]byte(rest.body), &status) != nil || rest.status < 400 || !strings.Contains(rest.body, "--allow-host") || len(status.Details) == 0 {
		return fmt.Errorf("REST: status %d: %s", rest.status, rest.body)
	}
	unary, err := f.do(http.MethodPost, "/user.v1.UserService/ListUsers", "{}")
	if err != nil || !strings.Contains(unary.body, `"code":"permission_denied"`) || !strings.Contains(unary.body, "--allow-host") {
		return fmt.Errorf("Connect: status %d: %s, %w", unary.status, unary.body, err)
	}
	const envelope = "\x00\x00\x00\x00\x02{}"
	stream, err := f.do(http.MethodPost, "/user.v1.UserService/StreamUserActivities", envelope, "Content-Type", "application/connect+json")
	if err != nil || stream.status != http.StatusOK || !strings.Contains(stream.body, "permission_denied") {
		return fmt.Errorf("Connect stream: status %d: %q, %w", stream.status, stream.body, err)
	}
	web, err := f.do(http.MethodPost, "/user.v1.UserService/ListUsers", "\x00\x00\x00\x00\x00", "Content-Type", "application/grpc-web+proto")
	if err != nil || web.status != http.StatusOK || !strings.Contains(strings.ToLower(web.body)+fmt.Sprint(web.header), "7") {
		return fmt.Errorf("gRPC-Web: status %d: %v %q, %w", web.status, web.header, web.body, err)
	}
	if !strings.Contains(f.backend.output.all(), "--allow-host") {
		return errors.New("no line of the log names --allow-host")
	}
	return nil
}

// forwarded expects the logged peer to be the address set by the proxy, not one forged by the
// client.
func forwarded(f front) error {
	marker := fmt.Sprintf("/api/v1/nothing-%d", time.Now().UnixNano())
	f.from = "127.0.0.5" // the address of the proxy is trusted
	if _, err := f.do(http.MethodGet, marker, "", "X-Forwarded-For", "192.0.2.55"); err != nil {
		return err
	}
	line := f.backend.lineWith(marker)
	if !strings.Contains(line, "peer=127.0.0.5") || strings.Contains(line, "192.0.2.55") {
		return fmt.Errorf("log line %q", line)
	}
	// Directly to the server, from a trusted address.
	straight := front{url: f.backend.url(), token: f.token}
	if _, err := straight.do(http.MethodGet, marker+"b", "", "X-Forwarded-For", "198.51.100.9, 192.0.2.55, 127.0.0.1"); err != nil {
		return err
	}
	if line := f.backend.lineWith(marker + "b"); !strings.Contains(line, "peer=192.0.2.55") {
		return fmt.Errorf("as a proxy: log line %q", line)
	}
	return nil
}

// forged expects a server without trusted proxies to ignore forwarding headers.
func forged(f front) error {
	marker := fmt.Sprintf("/api/v1/nothing-%d", time.Now().UnixNano())
	if _, err := f.do(http.MethodGet, marker, "", "X-Forwarded-For", "192.0.2.55", "Forwarded", "for=192.0.2.55"); err != nil {
		return err
	}
	if line := f.backend.lineWith(marker); !strings.Contains(line, "peer=127.0.0.1") {
		return fmt.Errorf("log line %q", line)
	}
	return nil
}

// lineWith waits for a log line.
func (p *process) lineWith(part string) string {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for line := range strings.Lines(p.output.all()) {
			if strings.Contains(line, part) {
				return line
			}
		}
	}
	return ""
}

// brokenFraming expects no ERROR lines for malformed requests.
func brokenFraming(f front) error {
	const get = "/user.v1.UserService/GetUser"
	for name, sent := range map[string][2]string{
		"compressed without an encoding":     {"application/grpc-web+proto", "\x01\x00\x00\x00\x02\x08\x01"},
		"truncated envelope":                 {"application/grpc-web+proto", "\x00\x00\x00\x00\xff\x08\x01"},
		"no envelope":                        {"application/grpc-web+proto", "{\"userId\":\"1\"}"},
		"truncated envelope of Connect":      {"application/connect+json", "\x00\x00\x00\x00\xff{}"},
		"compressed envelope of Connect":     {"application/connect+json", "\x01\x00\x00\x00\x02{}"},
		"JSON that ends early":               {"application/json", `{"userId":`},
		"gzip that is none":                  {"application/json", "nothing"},
		"text that is no base64 of gRPC-Web": {"application/grpc-web-text", "%%%%"},
	} {
		path, headers := get, []string{"Content-Type", sent[0]}
		if strings.HasPrefix(sent[0], "application/connect+") {
			path = "/user.v1.UserService/StreamUserActivities"
		}
		if strings.HasPrefix(name, "gzip") {
			headers = append(headers, "Content-Encoding", "gzip")
		}
		got, err := f.do(http.MethodPost, path, sent[1], headers...)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if got.status >= http.StatusInternalServerError {
			return fmt.Errorf("%s: status %d: %s", name, got.status, got.body)
		}
	}
	if err := brokenChunk(f.backend.addr); err != nil {
		return err
	}
	if got, err := f.do(http.MethodGet, "/api/v1/users", ""); err != nil || got.status != http.StatusOK {
		return fmt.Errorf("request afterwards: status %d, %w", got.status, err)
	}
	for line := range strings.Lines(f.backend.output.all()) {
		if strings.Contains(line, "level=ERROR") {
			return fmt.Errorf("unexpected log line %s", line)
		}
	}
	return nil
}

// brokenChunk sends a chunk with an invalid length.
func brokenChunk(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "POST /user.v1.UserService/GetUser HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+
		"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("invalid chunk: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("invalid chunk: status %s", resp.Status)
	}
	return nil
}

// overLimit expects the reason for a message over the limit in each protocol, although most of it is still to be sent.
func overLimit(f front) error {
	const call = "/user.v1.UserService/CreateUser"
	text := `{"username":"` + strings.Repeat("x", 12<<20) + `"}`
	enveloped := string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))) + text
	for _, c := range []struct{ path, kind, body, want string }{
		{"/api/v1/users", "application/json", text, "MESSAGE_TOO_LARGE"},
		{call, "application/json", text, "resource_exhausted"},
		{call, "application/grpc-web+json", enveloped, "Grpc-Status:[8]"},
		{"/user.v1.UserService/StreamUserActivities", "application/connect+json", enveloped, "resource_exhausted"},
	} {
		got, err := f.do(http.MethodPost, c.path, c.body, "Content-Type", c.kind)
		if err != nil {
			return fmt.Errorf("%s: %w", c.kind, err)
		}
		if shown := fmt.Sprint(got.header, got.body); !strings.Contains(shown, c.want) {
			return fmt.Errorf("%s: got %d %.500s, want %s", c.kind, got.status, shown, c.want)
		}
	}
	return nil
}

// restDetails checks details of REST that web pages and scripts rely on.
func restDetails(f front) error {
	id, err := f.createUser()
	if err != nil {
		return err
	}
	at := "/api/v1/users/" + id
	read, err := f.do(http.MethodGet, at, "")
	if err != nil {
		return err
	}
	etag := read.header.Get("Etag")
	large := `{"tags":["` + strings.Repeat("x", 5<<20) + `"]}`
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		has                      string
	}{
		{"a newline ends the response", "GET", at, "", nil, 200, "}\n"},
		{"empty lists are present", "GET", at, "", nil, 200, `"tags":`},
		{"the mask is made of the body's keys", "PATCH", at, `{"tags":["a"]}`, nil, 200, `"a"`},
		{"a weak and listed tag", "PATCH", at, `{"tags":["b"]}`, []string{"If-Match", `"other", W/` + etag}, 412, "ETAG_MISMATCH"},
		{"a list can be cleared", "PATCH", at, `{"tags":[]}`, nil, 200, `"tags":`},
		{"a body that is too large", "PATCH", at, large, nil, 413, "MESSAGE_TOO_LARGE"},
		{"a wrong type names the field", "PATCH", at, `{"tags":"x"}`, nil, 400, "array of strings"},
		{"a trailing comma", "PATCH", at, `{"tags":["x"],}`, nil, 400, "line 1:"},
		{"a short status", "PUT", at + "/status", `{"status":"INACTIVE"}`, nil, 200, "USER_STATUS_INACTIVE"},
		{"names of JSON in a query", "GET", at + "?fields=createdAt", "", nil, 200, "createdAt"},
		{"True is a boolean", "GET", "/api/v1/users?show_deleted=True", "", nil, 200, "users"},
		{"a batch by POST", "POST", "/api/v1/users:batchGet", `{"userIds":["` + id + `"]}`, nil, 200, id},
		{"bidi over HTTP/1.1", "POST", "/user.v1.UserService/SyncUserStatus", "", []string{"Content-Type", "application/connect+json"}, 505, "HTTP/2"},
		{"a bad base64", "GET", "/user.v1.UserService/GetUser?encoding=proto&base64=1&message=%25%25", "", nil, 400, ""},
	} {
		got, err := f.do(c.method, c.path, c.body, c.headers...)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if got.status != c.status || !strings.Contains(got.body, c.has) {
			return fmt.Errorf("%s: status %d: %s, want %d with %q", c.name, got.status, bytes.TrimSpace([]byte(got.body[:min(len(got.body), 300)])), c.status, c.has)
		}
	}
	return nil
}
