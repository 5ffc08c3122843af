package main_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// awaitClose reads until the server closes the connection.
func awaitClose(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("connection was not closed")
	}
}

// Connections with incomplete prefaces, headers or frames are closed.
func TestIncompleteRequests(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--header-timeout", "1s", "--keepalive-time", "1s", "--keepalive-timeout", "1s")
	const headers = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	x.withstands(t, func(t *testing.T) {
		var conns []net.Conn
		for _, begins := range []string{
			"",
			"PRI * HTT",
			"PRI * HTTP/2.0\r\n\r\n",
			http2.ClientPreface,                  // no SETTINGS
			headers,                              // no PING ack
			headers + "\x00\x40",                 // partial frame header
			headers + "\x00\x40\x00\x00\x00\x00", // frame without payload
			headers + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", // header block without END_HEADERS
			"G",
			"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		} {
			for range 20 {
				conns = append(conns, x.dial(t, begins))
			}
		}
		for _, conn := range conns {
			awaitClose(t, conn)
		}
	})
}

// Connections with incomplete TLS handshakes are closed.
func TestIncompleteHandshakes(t *testing.T) {
	t.Parallel()
	x := newSecureTarget(t, "--header-timeout", "1s")
	x.withstands(t, func(t *testing.T) {
		var conns []net.Conn
		for _, begins := range []string{
			"",
			"\x16\x03\x01",
			"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // partial ClientHello
		} {
			for range 20 {
				conn := x.connect(t)
				if _, err := io.WriteString(conn, begins); err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
		}
		for _, conn := range conns {
			awaitClose(t, conn)
		}
	})
}

// Calls with incomplete bodies end, over HTTP/1.1 and HTTP/2.
func TestIncompleteBodies(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--body-timeout", "1s")
	const path = userv1connect.UserServiceGetUserProcedure
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t)
		for i := range uint32(100) {
			id := 2*i + 1
			err := p.open(id, path)
			if err == nil && i%2 == 0 { // no message, or a part of one
				err = p.WriteData(id, false, []byte{0, 0, 0, 0, 9, 1})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var conns []net.Conn
		for range 20 {
			conns = append(conns, x.dial(t, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"))
		}
		x.awaitStreamEnds(t, p)
		for _, conn := range conns {
			awaitClose(t, conn)
		}
	})
}

// awaitStreamEnds reads until 100 streams have ended.
func (x *target) awaitStreamEnds(t *testing.T, p *rawPeer) {
	t.Helper()
	for ended := 0; ended < 100; {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamEnded() {
				ended++
			}
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = p.WriteSettingsAck()
			}
		default:
		}
	}
}

// Streams without flow-control window are reset. Their connection remains usable.
func TestStalledStreamsAreReset(t *testing.T) {
	t.Parallel()
	overBoth(t, testStalledStreamsAreReset)
}

func testStalledStreamsAreReset(t *testing.T, start func(*testing.T, ...string) *target) {
	x := start(t, "--stall-timeout", "1s")
	message, err := proto.Marshal(&userv1.StreamUserActivitiesRequest{UserId: x.id})
	if err != nil {
		t.Fatal(err)
	}
	x.withstands(t, func(t *testing.T) {
		const streams = 100
		p := x.peer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for i := range uint32(streams) {
			id := 2*i + 1
			err := errors.Join(
				p.open(id, userv1connect.UserServiceStreamUserActivitiesProcedure),
				p.WriteData(id, true, enveloped(0, message)),
			)
			if err != nil {
				t.Fatal(err)
			}
		}
		for resets := 0; resets < streams; {
			frame, err := p.ReadFrame()
			if err != nil {
				t.Fatalf("after %d resets: %v", resets, err)
			}
			if _, ok := frame.(*http2.RSTStreamFrame); ok {
				resets++
			}
		}
		x.checkUsable(t, p, 2*streams+1)
	})
}

// checkUsable makes a call over the peer's connection.
func (x *target) checkUsable(t *testing.T, p *rawPeer, id uint32) {
	t.Helper()
	message, err := proto.Marshal(&userv1.GetUserRequest{UserId: x.id})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		p.open(id, userv1connect.UserServiceGetUserProcedure, hpack.HeaderField{Name: "x-last", Value: "1"}),
		p.WriteData(id, true, enveloped(0, message)),
	)
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok && headers.StreamID == id {
			return
		}
	}
}

// Connections whose responses are not read are closed.
func TestStalledConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	overBoth(t, testStalledConnectionsAreClosed)
}

func testStalledConnectionsAreClosed(t *testing.T, start func(*testing.T, ...string) *target) {
	x := start(t, "--stall-timeout", "1s")
	importUsers(t, x.client, 2000)
	x.atRest(t)
	message, err := proto.Marshal(&userv1.ListUsersRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		if err := p.WriteWindowUpdate(0, 1<<30); err != nil {
			t.Fatal(err)
		}
		for i := range uint32(500) {
			id := 2*i + 1
			if p.open(id, userv1connect.UserServiceListUsersProcedure) != nil ||
				p.WriteData(id, true, enveloped(0, message)) != nil {
				break // closed already
			}
		}
		await(t, "the calls", func() bool {
			return number(t, x.ask(t, "/metrics"), `grpc_server_started_total\{[^}]*"ListUsers"[^}]*\} (\S+)`) > 0
		})
		// Only a call of the well-behaved client may remain.
		await(t, "stalled calls to be aborted", func() bool { return x.callsNow(t) <= 1 })
	})
}

// Stalled REST streams are aborted.
func TestStalledRESTStreamsAreAborted(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, start func(*testing.T, ...string) *target) {
		x := start(t, "--stall-timeout", "1s")
		for range 3 {
			if err := writeRows(t.Context(), x.client, x.id, 1000); err != nil {
				t.Fatal(err)
			}
		}
		x.atRest(t)
		for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
			t.Run(accept, func(t *testing.T) {
				const readers, cuts = 10, `userd_streams_aborted_total{reason="write_stalled"}`
				before := x.metric(t, cuts)
				x.withstands(t, func(t *testing.T) {
					for range readers {
						x.dial(t, "GET /api/v1/users/0/activities HTTP/1.1\r\nHost: localhost\r\nAccept: "+accept+"\r\n\r\n")
					}
					await(t, "stalled streams to be aborted", func() bool { return x.metric(t, cuts) == before+readers })
				})
			})
		}
	})
}
