package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// Over HTTP/1.1 a rejection does not wait for the request body.
func TestRejectionDoesNotWaitForBody(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel(), servertest.Config(func(c *server.Config) {
		c.StallTimeout = time.Hour // no stall timeout
	}))
	const (
		announced = "Content-Length: 1000\r\n"
		chunked   = "Transfer-Encoding: chunked\r\n"
	)
	for name, request := range map[string]struct{ path, header, body string }{
		"announced, RPC":     {"/user.v1.UserService/CreateUser", "Content-Type: application/json\r\n" + announced, ""},
		"announced, REST":    {"/api/v1/users", "Content-Type: application/json\r\n" + announced, ""},
		"bad token":          {"/api/v1/users", "Authorization: Bearer x\r\n" + announced, ""},
		"chunks without end": {"/user.v1.UserService/CreateUser", "Content-Type: application/json\r\n" + chunked, "2\r\n{}\r\n"},
		"client stream": {
			"/user.v1.UserService/BatchUpdateUsers", "Content-Type: application/connect+json\r\n" + chunked,
			"7\r\n\x00\x00\x00\x00\x02{}\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialer := net.Dialer{}
			conn, err := dialer.DialContext(context.Background(), "tcp", g.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			// --body-timeout is 30 s.
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s", request.path, request.header, request.body); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no response: %v", err)
			}
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			want := http.StatusUnauthorized
			if name == "client stream" {
				want = http.StatusOK // the error is in the end of the stream
			}
			if err != nil || response.StatusCode != want || !response.Close {
				t.Errorf("got %d %s, %v; the connection is to close: %v", response.StatusCode, text, err, response.Close)
			}
			if !bytes.Contains(text, []byte("unauthenticated")) && !bytes.Contains(text, []byte("CREDENTIALS_")) {
				t.Errorf("got %q without a reason", text)
			}
		})
	}
}
