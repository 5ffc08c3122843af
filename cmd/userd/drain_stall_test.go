package main_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// Stalled readers do not delay a drain: their streams are reset soon. Other streams end with
// SERVER_DRAINING.
func TestDrainDoesNotWaitForStalledReaders(t *testing.T) {
	for name, stall := range map[string]func(context.Context, *testing.T, *process) error{
		"closed flow-control window": stallWindow, "unread connection": stallConnection,
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, hangTimeout)
			p := program{dir: t.TempDir()}.start(t)
			client := p.client(t, 1<<20)
			id := createOne(ctx, t, p)
			for range 3 {
				if err := writeRows(ctx, client, id, 1000); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				if err := stall(ctx, t, p); err != nil {
					t.Fatal(err)
				}
			}
			live, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			p.terminate(t)
			took := time.Since(start)
			t.Logf("stopped in %v", took)
			if p.err != nil || took > 6*time.Second {
				t.Errorf("shutdown took %v, exit status: %v\n%s", took, p.err, p.output)
			}
			for live.Receive() {
			}
			mustBe(t, live.Err(), connect.CodeUnavailable, "SERVER_DRAINING")
		})
	}
}

// stallWindow opens a stream, reads one row and sends no more WINDOW_UPDATE.
func stallWindow(ctx context.Context, t *testing.T, p *process) error {
	stream, err := p.client(t, 1<<16).StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
	if err == nil && !stream.Receive() {
		err = stream.Err()
	}
	return err
}

// stallConnection opens a stream with a large window and stops reading from its connection.
func stallConnection(ctx context.Context, t *testing.T, p *process) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = conn.Close() })
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetReadBuffer(16 << 10); err != nil {
			return err
		}
	}
	stalled := &stalledConn{Conn: conn, closed: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:   protocols,
		HTTP2:       &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 30, MaxReceiveBufferPerStream: 1 << 30},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return stalled, nil },
	}
	t.Cleanup(transport.CloseIdleConnections)
	client := userv1connect.NewUserServiceClient(&http.Client{Transport: transport}, p.url(), connect.WithGRPC())
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		return err
	}
	if !stream.Receive() {
		return stream.Err()
	}
	var before int64
	eventually(ctx, t, func(context.Context) error {
		now, err := queued(conn.RemoteAddr(), conn.LocalAddr())
		if err == nil && (now == 0 || now != before) {
			before, err = now, errors.New("send queue still changes")
		}
		return err
	})
	return nil
}

// queued returns the size of the send queue of a TCP connection.
func queued(from, to net.Addr) (bytes int64, err error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && hasPort(fields[1], from) && hasPort(fields[2], to) {
			sent, _, _ := strings.Cut(fields[4], ":")
			return strconv.ParseInt(sent, 16, 64)
		}
	}
	return 0, fmt.Errorf("no connection from %v to %v", from, to)
}

func hasPort(field string, addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && strings.HasSuffix(field, fmt.Sprintf(":%04X", tcp.Port))
}

// stalledConn blocks reads after 256 KiB.
type stalledConn struct {
	net.Conn

	read   int
	once   sync.Once
	closed chan struct{}
}

func (c *stalledConn) Read(b []byte) (int, error) {
	if c.read > 1<<18 {
		<-c.closed
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	c.read += n
	return n, err
}

func (c *stalledConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// writeRows writes incompressible rows of 4 KiB each in one batch. They have few large values, because each value is indexed.
func writeRows(ctx context.Context, client userv1connect.UserServiceClient, id int64, rows int) error {
	req := &userv1.UpdateUsersRequest{}
	for range rows {
		metadata := make(map[string]string)
		for i := range 3 {
			var value strings.Builder
			for value.Len() < user.MaxMetadataValue-len(rand.Text()) {
				value.WriteString(rand.Text())
			}
			metadata[fmt.Sprint("key", i)] = value.String()
		}
		req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Metadata: metadata}})
	}
	_, err := client.UpdateUsers(ctx, req)
	return err
}
