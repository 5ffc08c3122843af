package main_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// Idle clients and clients with incomplete requests do not delay a drain.
func TestDrainDoesNotWaitForSilentClients(t *testing.T) {
	t.Parallel()
	const shutdownTimeout = 5 * time.Second
	const created = `{"username":"ada","email":"ada@example.org"}`
	for name, begins := range map[string]string{
		"nothing":                        "",
		"partial HTTP/1.1 header":        "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ",
		"partial second HTTP/1.1 header": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT",
		"partial HTTP/2 preface":         http2.ClientPreface[:10],
		"HTTP/2 preface only":            http2.ClientPreface,
		"HTTP/2 without a request":       http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"request without its body":       postHeader(len(created)),
		"request with a partial body":    postHeader(len(created)) + created[:20],
		"REST request without its body":  strings.Replace(postHeader(len(created)), "/user.v1.UserService/CreateUser", "/api/v1/users", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, hangTimeout)
			p := program{dir: t.TempDir(), flags: []string{"--shutdown-timeout", shutdownTimeout.String()}}.start(t)
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, begins); err != nil {
				t.Fatal(err)
			}
			createOne(ctx, t, p) // the server has read the bytes above
			start := time.Now()
			p.terminate(t)
			took := time.Since(start)
			t.Logf("stopped in %v", took)
			if p.err != nil || took > shutdownTimeout/2 {
				t.Errorf("shutdown took %v, exit status: %v\n%s", took, p.err, p.output)
			}
		})
	}
}

// postHeader returns the header of a request with a body of the given size.
func postHeader(bytes int) string {
	return fmt.Sprintf("POST /user.v1.UserService/CreateUser HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", bytes)
}

// If the disk hangs, a drain ends within --shutdown-timeout. Blocked calls fail with
// SERVER_DRAINING, and acknowledged writes survive.
func TestDrainWhileDiskHangs(t *testing.T) {
	t.Parallel()
	const shutdownTimeout = 3 * time.Second
	ctx := within(t, hangTimeout)
	s := &failureTest{admin: adminAddress()}
	s.program = program{dir: t.TempDir(), flags: []string{"--admin-listen", s.admin, "--shutdown-timeout", shutdownTimeout.String()}}
	s.restart(t)
	for range 20 {
		s.mustCreate(ctx, t)
	}
	tr := inject(t, s.process, "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=20000000")
	const calls = 2
	ends := make(chan error, calls)
	for range calls {
		go func() { ends <- s.create(ctx) }()
	}
	live, err := s.client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true})
	if err != nil {
		t.Fatal(err)
	}
	s.mustRead(ctx, t) // the calls are in progress
	start := time.Now()
	if err := s.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for live.Receive() {
	}
	mustBe(t, live.Err(), connect.CodeUnavailable, "SERVER_DRAINING")
	for range calls {
		mustBe(t, <-ends, connect.CodeUnavailable, "SERVER_DRAINING")
	}
	s.process.output.await(t, "close store: abandoned") // the last log line
	if took := time.Since(start); took > shutdownTimeout+time.Second {
		t.Errorf("shutdown took %v", took)
	}
	tr.detach() // a traced process cannot exit
	<-s.process.exited
	if s.process.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit status: %v, want 1\n%s", s.process.err, s.process.output)
	}
	s.restart(t)
	s.mustRead(ctx, t)
}
