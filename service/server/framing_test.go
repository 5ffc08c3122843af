package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// framed is a request with an invalid body.
type framed struct {
	path, kind string
	header     http.Header
	body       []byte
}

func framedMessage(flags byte, size uint32, data string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, size), data...)
}

// framings are bodies with all kinds of invalid framing, and some valid ones.
func framings() map[string][]byte {
	whole := framedMessage(0, 2, "\x08\x01")
	return map[string][]byte{
		"nothing":                nil,
		"part of a prefix":       {0, 0},
		"prefix alone":           framedMessage(0, 10, ""),
		"part of a message":      framedMessage(0, 10, "AAAA"),
		"whole, then a part":     append(bytes.Clone(whole), 0, 0, 0),
		"whole, then more":       append(bytes.Clone(whole), framedMessage(0, 9, "x")...),
		"compressed":             framedMessage(1, 4, "AAAA"),
		"compressed, empty":      framedMessage(1, 0, ""),
		"end of a stream":        framedMessage(2, 2, "{}"),
		"trailers":               framedMessage(0x80, 0, ""),
		"all flags":              framedMessage(0xff, 1, "x"),
		"JSON":                   []byte(`{"userId":"1"}`),
		"text":                   []byte("hello, this is no message"),
		"larger than the limit":  framedMessage(0, 1<<30, "x"),
		"no message":             framedMessage(0, 4, "\xff\xff\xff\xff"),
		"two of one":             append(bytes.Clone(whole), whole...),
		"bytes that are no gzip": framedMessage(1, 4, "\x1f\x8b\x08\x00"),
	}
}

// kinds are the media types of all protocols, with their compression headers.
var kinds = map[string]string{
	"application/grpc": "Grpc-Encoding", "application/grpc+json": "Grpc-Encoding",
	"application/grpc-web-text": "Grpc-Encoding", "application/grpc-web": "Grpc-Encoding", "application/grpc-web+proto": "Grpc-Encoding",
	"application/connect+proto": "Connect-Content-Encoding", "application/connect+json": "Connect-Content-Encoding",
	"application/proto": "Content-Encoding", "application/json": "Content-Encoding",
}

func framedRequests() map[string]framed {
	all := map[string]framed{}
	for name, body := range framings() {
		for kind, coding := range kinds {
			for _, method := range []string{"GetUser", "BatchUpdateUsers", "StreamUserActivities", "SyncUserStatus"} {
				for _, value := range []string{"", "identity", "gzip"} {
					if name == "compressed, empty" && value == "gzip" {
						continue // an empty message streams the log
					}
					f := framed{path: "/user.v1.UserService/" + method, kind: kind, body: body, header: http.Header{}}
					if value != "" {
						f.header.Set(coding, value)
					}
					all[strings.Join([]string{name, kind, method, value}, ", ")] = f
				}
			}
		}
		all[name+", REST"] = framed{path: "/api/v1/users", kind: "application/json", body: body, header: http.Header{}}
	}
	return all
}

func (f framed) send(t *testing.T, client *http.Client, body io.Reader) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://userd.test"+f.path, body)
	if err != nil {
		t.Fatal(err)
	}
	if f.kind == "application/grpc-web-text" && len(f.body)%2 == 0 { // otherwise the base64 is invalid, too
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(base64.StdEncoding.EncodeToString(f.body))), -1
	}
	r.Header = f.header.Clone()
	r.Header.Set("Content-Type", f.kind)
	r.Header.Set("Te", "trailers")
	res, err := client.Do(r)
	if err != nil {
		return "", false
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, res.Header, res.Trailer, string(text)), true
}

// watchedServer is a server whose log and metrics are checked.
type watchedServer struct {
	*servertest.Server

	log *lockedBuffer
}

func startWatched(t *testing.T) watchedServer {
	t.Helper()
	log := new(lockedBuffer)
	return watchedServer{servertest.Start(t, servertest.Parallel(), servertest.Admin(),
		servertest.Config(func(c *server.Config) { c.BodyTimeout = 2 * time.Second }),
		servertest.Log(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))), log}
}

var serverFaults = regexp.MustCompile(`(?m)^(grpc_server_handled_total\{grpc_code="(Internal|Unknown|DataLoss)".*|` +
	`userd_errors_total\{reason="INTERNAL"\}|userd_http_\w+\{code="(500|grpc_2|grpc_13|grpc_15)".*) [1-9].*$`)

// wantNoServerError fails if a server error was counted or logged.
func (s watchedServer) wantNoServerError(t *testing.T) {
	t.Helper()
	s.Stop() // flushes the log
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for line := range strings.Lines(s.log.b.String()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "incident") || strings.Contains(line, "code=internal") {
			t.Errorf("logged server error: %s", line)
		}
	}
}

func (s watchedServer) wantNoFaultCounted(t *testing.T) {
	t.Helper()
	_, text := fetch(t, s.AdminURL()+"/metrics")
	for _, line := range serverFaults.FindAllString(text, -1) {
		t.Errorf("counted server error: %s", line)
	}
}

// An invalid body is a client error in the response, the log and the metrics.
func TestInvalidFramingIsClientError(t *testing.T) {
	t.Parallel()
	s := startWatched(t)
	for name, f := range framedRequests() {
		for _, http2 := range []bool{false, true} {
			text, ok := f.send(t, s.HTTP(http2), bytes.NewReader(f.body))
			if !ok || strings.HasPrefix(text, "500") || strings.Contains(text, "incident") {
				t.Errorf("%s, HTTP/2 %v: %.300s", name, http2, text)
			}
		}
	}
	s.wantNoFaultCounted(t)
	s.wantNoServerError(t)
}

func TestBodyWithoutEnvelope(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for kind := range kinds {
		if kind == "application/json" || kind == "application/proto" || kind == "application/grpc-web-text" {
			continue // not enveloped, or its response is in base64
		}
		f := framed{path: "/user.v1.UserService/StreamUserActivities", kind: kind, body: []byte(`{"userId":"0"}`), header: http.Header{}}
		text, _ := f.send(t, s.HTTP(true), bytes.NewReader(f.body))
		if !strings.Contains(text, "not an enveloped message") || strings.Contains(text, "larger") {
			t.Errorf("%s: %s", kind, text)
		}
	}
}

// failingReader aborts a request.
type failingReader struct{ io.Reader }

func (r failingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("the client breaks off")
	}
	return n, err
}

// Random bodies, complete or aborted, over HTTP/1.1 and HTTP/2.
func TestRandomFramingIsClientError(t *testing.T) {
	t.Parallel()
	s := startWatched(t)
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	// Few of them are an empty message, which streams the log until its deadline.
	pieces := [][]byte{{1}, {2}, {0x80}, {0, 0, 0, 0, 2, 8, 1}, {0, 0, 0, 1}, framedMessage(0, 3, "ab"), []byte(`{"userId":"1"}`), {0xff, 0xff}, nil}
	var choices []framed
	for _, f := range framedRequests() {
		choices = append(choices, f)
	}
	for range 400 {
		f := choices[random.IntN(len(choices))]
		f.body = nil
		for range random.IntN(6) {
			f.body = append(f.body, pieces[random.IntN(len(pieces))]...)
		}
		body := io.Reader(bytes.NewReader(f.body))
		if random.IntN(2) == 0 {
			body = failingReader{body}
		}
		text, _ := f.send(t, s.HTTP(random.IntN(2) == 0), body)
		if strings.HasPrefix(text, "500") || strings.Contains(text, "incident") {
			t.Errorf("%s %s %q: %.300s", f.path, f.kind, f.body, text)
		}
	}
	s.wantNoFaultCounted(t)
	s.wantNoServerError(t)
}

// Invalid HTTP/1.1: bad chunks, truncated bodies, closed connections.
func TestInvalidHTTP1Bodies(t *testing.T) {
	t.Parallel()
	s := startWatched(t)
	for kind := range kinds {
		for _, path := range []string{"/user.v1.UserService/GetUser", "/user.v1.UserService/BatchUpdateUsers", "/user.v1.UserService/StreamUserActivities", "/api/v1/users"} {
			for name, rest := range map[string]string{
				"bad chunk":           "Transfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
				"bad end of a chunk":  "Transfer-Encoding: chunked\r\n\r\n2\r\n\x00\x00xx\r\n",
				"no last chunk":       "Transfer-Encoding: chunked\r\n\r\n2\r\n\x00\x00\r\n",
				"huge chunk":          "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
				"shorter than it was": "Content-Length: 100\r\n\r\n{\"a\"",
				"nothing of it":       "Content-Length: 100\r\n\r\n",
			} {
				if path == "/api/v1/users" && kind != "application/json" {
					continue
				}
				for _, halfClosed := range []bool{true, false} {
					text := sendBroken(t, s.Addr(), "POST "+path+" HTTP/1.1\r\nHost: userd.test\r\nContent-Type: "+kind+"\r\n"+rest, halfClosed)
					if strings.Contains(text, "HTTP/1.1 500") || strings.Contains(text, "incident") {
						t.Errorf("%s, %s %s, half closed %v: %.300s", name, path, kind, halfClosed, text)
					}
				}
			}
		}
	}
	s.wantNoFaultCounted(t)
	s.wantNoServerError(t)
}

// sendBroken sends bytes over a new connection, and returns the response if only the sending half was
// closed.
func sendBroken(t *testing.T, addr, text string, halfClosed bool) string {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && halfClosed {
		_ = tcp.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		response, _ := io.ReadAll(conn)
		return string(response)
	}
	return ""
}
