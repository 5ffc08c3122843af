package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// Server streams end with the tokens of their callers over every protocol, with the reason.
func TestServerStreamsEndWithTokens(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	_, err := g.grpc(g.token(t, "writer", time.Hour, auth.UsersWrite)).
		CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	token := g.token(t, "short", 2*time.Second, auth.AllPermissions().List()...)
	// The streams run at the same time, in goroutines and not in parallel subtests, whose number is limited:
	// they must begin before the token expires.
	var streams sync.WaitGroup
	ended := make([]error, len(servertest.Protocols()))
	for i, p := range servertest.Protocols() {
		streams.Go(func() {
			client := userv1connect.NewUserServiceClient(g.as(p.HTTP2, token), "http://userd.test", p.Options...)
			stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{})
			if err != nil {
				t.Errorf("%s: %v", p.Name, err)
				return
			}
			defer func() { _ = stream.Close() }()
			rows := 0
			for stream.Receive() {
				rows++
			}
			if rows != 1 {
				t.Errorf("%s: got %d rows before the end, want 1", p.Name, rows)
			}
			ended[i] = stream.Err()
		})
	}
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		for _, over2 := range []bool{false, true} {
			streams.Go(func() {
				text, err := g.readStream(t.Context(), over2, token, accept)
				if err != nil || !strings.Contains(text, "user.created") || !strings.Contains(text, "CREDENTIALS_EXPIRED") {
					t.Errorf("%s, HTTP/2 %v: ended with %v, %s, want a row and CREDENTIALS_EXPIRED", accept, over2, err, text)
				}
			})
		}
	}
	streams.Wait()
	for i, p := range servertest.Protocols() {
		t.Run(p.Name, func(t *testing.T) { wantError(t, ended[i], connect.CodeUnauthenticated, user.CredentialsExpired) })
	}
}

// readStream reads the stream of all rows to its end.
func (g guarded) readStream(ctx context.Context, over2 bool, token, accept string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://userd.test/api/v1/users/0/activities", http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", accept)
	response, err := g.as(over2, token).Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// mostAfter bounds the bytes that a client still receives after the expiry: those in flow-control windows
// and socket buffers. The log is twelve times as large.
const mostAfter = 100_000

// startSlow starts a server with a log of a megabyte, connections with small buffers, and a token that
// expires soon. expired waits for that.
func startSlow(t *testing.T) (g guarded, token string, expired func()) {
	t.Helper()
	g = startGuarded(t, servertest.Parallel(), servertest.Listen(func() (net.Listener, error) {
		var config net.ListenConfig
		inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		return narrowListener{inner}, err
	}))
	fillLog(t, g.Server)
	token = g.token(t, "slow", 2*time.Second, auth.AllPermissions().List()...)
	idle, err := g.grpc(token).StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{FromHead: true})
	if err != nil {
		t.Fatal(err)
	}
	return g, token, func() {
		t.Helper()
		idle.Receive()
		wantError(t, idle.Err(), connect.CodeUnauthenticated, user.CredentialsExpired)
		_ = idle.Close()
	}
}

// A slow client only receives the bytes in flight at the expiry, and then the reason.
func TestSlowEventStreamEndsWithToken(t *testing.T) {
	t.Parallel()
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		t.Run(accept, func(t *testing.T) {
			t.Parallel()
			g, token, expired := startSlow(t)
			conn := dialNarrow(t, g.Server)
			if _, err := fmt.Fprintf(conn, "GET /api/v1/users/0/activities HTTP/1.1\r\nHost: x\r\nAccept: %s\r\nAuthorization: Bearer %s\r\n\r\n",
				accept, token); err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 1000)
			if _, err := io.ReadFull(conn, first); err != nil {
				t.Fatal(err)
			}
			expired()
			rest, err := readUntil(conn, "CREDENTIALS_EXPIRED")
			if err != nil || rest > mostAfter {
				t.Errorf("got %d bytes more, %v", rest, err)
			}
		})
	}
}

// readUntil reads up to a text and returns the number of bytes.
func readUntil(conn net.Conn, text string) (n int, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, err
	}
	var got bytes.Buffer
	for piece := make([]byte, 4096); ; {
		m, err := conn.Read(piece)
		got.Write(piece[:m])
		if err != nil || bytes.Contains(got.Bytes(), []byte(text)) {
			return got.Len(), err
		}
	}
}

// The same over gRPC, with backpressure by the window of the stream.
func TestSlowGRPCStreamEndsWithToken(t *testing.T) {
	t.Parallel()
	g, token, expired := startSlow(t)
	peer := dialHTTP2(t, g.Server, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4 << 10})
	peer.token = token
	peer.call(t, 1, replayed, &userv1.StreamUserActivitiesRequest{})
	got := 0
	take := func() (ended bool) {
		switch frame := peer.await(t, func(http2.Frame) bool { return true }).(type) {
		case *http2.DataFrame:
			n := uint32(len(frame.Data()))
			got += int(n)
			if n > 0 {
				if err := errors.Join(peer.WriteWindowUpdate(0, n), peer.WriteWindowUpdate(1, n)); err != nil {
					t.Fatal(err)
				}
			}
		case *http2.RSTStreamFrame:
			t.Fatal("the stream was cut without a word")
		case *http2.MetaHeadersFrame:
			if frame.StreamEnded() {
				for _, field := range frame.RegularFields() {
					if field.Name == "grpc-status" && field.Value != "16" {
						t.Errorf("ended with %v", field)
					}
				}
				return true
			}
		}
		return false
	}
	for got == 0 {
		take()
	}
	expired()
	got = 0
	for !take() {
	}
	if got > mostAfter {
		t.Errorf("got %d bytes more", got)
	}
}
