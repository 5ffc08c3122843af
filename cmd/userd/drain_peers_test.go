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

// Whoever says nothing, or no more, neither holds up a stop nor makes it a bad one.
func TestStopDoesNotWaitForSilentPeers(t *testing.T) {
	t.Parallel()
	const patience = 5 * time.Second
	const created = `{"username":"ada","email":"ada@example.org"}`
	for name, begins := range map[string]string{
		"nothing":                          "",
		"half a header of HTTP/1.1":        "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ",
		"half a second header of HTTP/1.1": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT",
		"half a preface of HTTP/2":         http2.ClientPreface[:10],
		"a preface of HTTP/2 and no more":  http2.ClientPreface,
		"HTTP/2 without a call":            http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"a call whose body does not come":  postHeader(len(created)),
		"a call whose body does not end":   postHeader(len(created)) + created[:20],
		"a call of REST without its body":  strings.Replace(postHeader(len(created)), "/user.v1.UserService/CreateUser", "/api/v1/users", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, time.Minute)
			p := program{dir: t.TempDir(), flags: []string{"--shutdown-timeout", patience.String()}}.start(t)
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, begins); err != nil {
				t.Fatal(err)
			}
			createOne(ctx, t, p) // what came before this has been seen
			began := time.Now()
			p.terminate(t)
			took := time.Since(began)
			t.Logf("stopped in %v", took)
			if p.err != nil || took > patience/2 {
				t.Errorf("it took %v to stop, and it ended with %v\n%s", took, p.err, p.output)
			}
		})
	}
}

// postHeader is the header of a call with a body of so many bytes.
func postHeader(bytes int) string {
	return fmt.Sprintf("POST /user.v1.UserService/CreateUser HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", bytes)
}

// A stop ends in its time whatever hangs. Calls that wait for a disk are told, before
// their connections are closed, and what was acknowledged is there at the next start.
func TestStopWhileTheDiskHangs(t *testing.T) {
	t.Parallel()
	const patience = 3 * time.Second
	ctx := within(t, time.Minute)
	s := &troubled{admin: adminAddress()}
	s.program = program{dir: t.TempDir(), flags: []string{"--admin-listen", s.admin, "--shutdown-timeout", patience.String()}}
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
	s.mustRead(ctx, t) // the calls have begun
	began := time.Now()
	if err := s.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for live.Receive() {
	}
	mustBe(t, live.Err(), connect.CodeUnavailable, "SERVER_DRAINING")
	for range calls {
		mustBe(t, <-ends, connect.CodeUnavailable, "SERVER_DRAINING")
	}
	s.process.output.await(t, "close the store: left undone") // its last words
	if took := time.Since(began); took > patience+time.Second {
		t.Errorf("it took %v to stop", took)
	}
	tr.detach() // who is traced is not let go before
	<-s.process.exited
	if s.process.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v\n%s", s.process.err, s.process.output)
	}
	s.restart(t)
	s.mustRead(ctx, t)
}
