package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// drainRun drains a server under load and checks:
//
//   - A successful write has taken effect exactly once; a failed one has not, and its code
//     is UNAVAILABLE. So in-flight calls are completed.
//   - Each stream ends with UNAVAILABLE, SERVER_DRAINING and a position not before that of
//     its last message.
//   - The program exits within --shutdown-timeout, with status 0.
type drainRun struct {
	process     *process
	connections []userv1connect.UserServiceClient
	users       []int64

	open   sync.WaitGroup // streams not open yet
	next   atomic.Int64
	enough chan struct{} // closed after drainAcks acknowledgments

	mu      sync.Mutex
	acked   []string // user names
	refused []string
}

const (
	drainConnections = 6
	drainStreams     = 1020
	drainCallers     = 16
	drainAcks        = 1000
)

func TestDrainUnderLoad(t *testing.T) {
	const shutdownTimeout = 10 * time.Second
	ctx := within(t, hangTimeout)
	program := program{dir: t.TempDir(), flags: []string{"--shutdown-timeout", shutdownTimeout.String()}}
	run := &drainRun{process: program.start(t), enough: make(chan struct{})}
	for range drainConnections {
		run.connections = append(run.connections, run.process.client(t, 1<<20))
	}
	if err := run.createUsers(ctx); err != nil {
		t.Fatal(err)
	}
	var streams, callers errgroup.Group
	run.open.Add(drainStreams)
	for i := range drainStreams {
		streams.Go(func() error { return run.stream(ctx, i) })
	}
	run.open.Wait()
	for i := range drainCallers {
		callers.Go(func() error { return run.call(ctx, run.connections[i%drainConnections]) })
	}
	<-run.enough
	start := time.Now()
	run.process.terminate(t)
	took := time.Since(start)
	if run.process.err != nil || took > shutdownTimeout {
		t.Errorf("shutdown took %v, exit status: %v\n%s", took, run.process.err, run.process.output)
	}
	for kind, err := range map[string]error{"streams": streams.Wait(), "callers": callers.Wait()} {
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	run.compare(ctx, t, program.start(t))
	t.Logf("stopped in %v with %d streams; %d writes acknowledged, %d refused", took, drainStreams, len(run.acked), len(run.refused))
}

func (r *drainRun) createUsers(ctx context.Context) error {
	for i := range 50 {
		name := fmt.Sprintf("followed-%d", i)
		resp, err := r.connections[0].CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"})
		if err != nil {
			return err
		}
		r.users = append(r.users, resp.GetUser().GetUserId())
	}
	return nil
}

// call writes and reads until the server refuses a create.
func (r *drainRun) call(ctx context.Context, client userv1connect.UserServiceClient) error {
	for {
		n := r.next.Add(1)
		name := fmt.Sprintf("drained-%06d", n)
		_, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"})
		r.mu.Lock()
		if err == nil {
			r.acked = append(r.acked, name)
		} else {
			r.refused = append(r.refused, name)
		}
		if err == nil && len(r.acked) == drainAcks {
			close(r.enough)
		}
		r.mu.Unlock()
		switch connect.CodeOf(err) {
		case connect.CodeUnavailable:
			return nil
		default:
			if err != nil {
				return fmt.Errorf("create %s: %w", name, err)
			}
		}
		// For the status streams.
		_, err = client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{
			UserId: r.users[n%int64(len(r.users))], Status: userv1.UserStatus(1 + n%3),
		})
		if err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
			return fmt.Errorf("update status: %w", err)
		}
		if err := r.read(ctx, client, n); err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
			return fmt.Errorf("read: %w", err)
		}
	}
}

func (r *drainRun) read(ctx context.Context, client userv1connect.UserServiceClient, n int64) error {
	_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: r.users[n%int64(len(r.users))]})
	if err == nil {
		_, err = client.ListUsers(ctx, &userv1.ListUsersRequest{PageSize: 100})
	}
	return err
}

// stream opens stream number i and checks how it ends. A few streams follow all users, most
// a single one.
func (r *drainRun) stream(ctx context.Context, i int) error {
	client, id := r.connections[i%drainConnections], r.users[i%len(r.users)]
	if i/drainConnections%20 == 0 {
		id = 0
	}
	opened := sync.OnceFunc(r.open.Done)
	defer opened() // also if it fails
	var last int64
	var err error
	kinds := []string{"StreamUserActivities", "WatchUserStatus", "SyncUserStatus"}
	switch i / drainConnections % len(kinds) {
	case 0:
		last, err = followLog(ctx, client, id, opened)
	case 1:
		last, err = followStatus(ctx, client, id, opened)
	default:
		last, err = syncStatus(ctx, client, id, opened)
	}
	info := infoOf(err)
	position, _ := strconv.ParseInt(info.GetMetadata()["position"], 10, 64) // 0 is invalid, too
	if connect.CodeOf(err) != connect.CodeUnavailable || info.GetReason() != "SERVER_DRAINING" ||
		info.GetMetadata()["epoch"] == "" || position < max(last, 1) {
		return fmt.Errorf("stream %d (%s) of user %d ended after position %d: %w (%v)",
			i, kinds[i/drainConnections%len(kinds)], id, last, err, info)
	}
	return nil
}

func followLog(ctx context.Context, client userv1connect.UserServiceClient, id int64, opened func()) (last int64, err error) {
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: id, FromHead: true})
	if err != nil {
		return 0, err
	}
	for opened(); stream.Receive(); {
		last = stream.Msg().GetActivityId()
	}
	return last, stream.Err()
}

func followStatus(ctx context.Context, client userv1connect.UserServiceClient, id int64, opened func()) (last int64, err error) {
	req := &userv1.WatchUserStatusRequest{All: true}
	if id != 0 {
		req = &userv1.WatchUserStatusRequest{UserIds: []int64{id}}
	}
	stream, err := client.WatchUserStatus(ctx, req)
	if err != nil {
		return 0, err
	}
	for opened(); stream.Receive(); {
		last = stream.Msg().GetActivityId()
	}
	return last, stream.Err()
}

func syncStatus(ctx context.Context, client userv1connect.UserServiceClient, id int64, opened func()) (last int64, err error) {
	stream, err := client.SyncUserStatus(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&userv1.UserStatusUpdate{UserId: id}); err != nil {
		return 0, err
	}
	for {
		update, err := stream.Receive()
		if err != nil {
			return last, err
		}
		opened()
		last = max(last, update.GetActivityId())
	}
}

// compare compares the results of the creates with the log.
func (r *drainRun) compare(ctx context.Context, t *testing.T, p *process) {
	t.Helper()
	created := make(map[string]int)
	stream, err := p.client(t, 1<<20).StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{
		ReplayOnly: true, Actions: []string{"user.created"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
		created[stream.Msg().GetDetails()["new.username"]]++
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range r.acked {
		if created[name] != 1 {
			t.Errorf("create %s was acknowledged, log has %d rows of it, want 1", name, created[name])
		}
	}
	for _, name := range r.refused {
		if created[name] != 0 {
			t.Errorf("create %s failed but took effect", name)
		}
	}
	if len(created) != len(r.acked)+len(r.users) {
		t.Errorf("log has %d creates, %d were acknowledged", len(created)-len(r.users), len(r.acked))
	}
}

// Open client streams end with SERVER_DRAINING.
func TestDrainEndsClientStreams(t *testing.T) {
	ctx := within(t, hangTimeout)
	p := program{dir: t.TempDir()}.start(t)
	client := p.client(t, 1<<20)
	id := createOne(ctx, t, p)
	creates, err := client.BatchCreateUsers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	updates, err := client.BatchUpdateUsers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		name := fmt.Sprintf("imported-%d", i)
		err := errors.Join(
			creates.Send(&userv1.BatchCreateUsersRequest{
				User: &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"},
			}),
			updates.Send(&userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Tags: []string{name}}}),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	// After this response the server has received both streams.
	if _, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	p.terminate(t)
	if took := time.Since(start); p.err != nil || took > 5*time.Second {
		t.Errorf("shutdown took %v, exit status: %v\n%s", took, p.err, p.output)
	}
	_, createsErr := creates.CloseAndReceive()
	_, updatesErr := updates.CloseAndReceive()
	for _, err := range []error{createsErr, updatesErr} {
		// The position is that of the start: no item was applied.
		if info := mustBe(t, err, connect.CodeUnavailable, "SERVER_DRAINING"); info.GetMetadata()["position"] != "1" {
			t.Errorf("error info = %v, want position 1", info)
		}
	}
}

// A signal during the start is a graceful stop.
func TestSignalDuringStart(t *testing.T) {
	database, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // a database that does not respond
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = database.Close() }()
	store := fmt.Sprintf("postgres://user@%s/users?sslmode=disable", database.Addr())
	cmd := exec.Command(build(t, ""), "--listen", "127.0.0.1:0", "--admin-listen", "", "--store", store) //nolint:noctx // stopped by a signal
	out := new(bytes.Buffer)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := database.Accept() // userd waits for it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "stopped before the start was complete") {
		t.Errorf("exit status = %v, want 0 with a line about the start:\n%s", err, out)
	}
}

// A second signal kills the process during a drain.
func TestSecondSignalKills(t *testing.T) {
	ctx := within(t, hangTimeout)
	p := program{dir: t.TempDir(), flags: []string{"--drain-wait", "1h"}}.start(t)
	client := p.client(t, 1<<20)
	id := createOne(ctx, t, p)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.output.await(t, "shutting down")
	if _, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
		t.Errorf("call during --drain-wait: %v", err)
	}
	start := time.Now()
	eventually(ctx, t, func(context.Context) error {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have exited
		select {
		case <-p.exited:
			return nil
		default:
			return io.ErrNoProgress
		}
	})
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("exit after the second signal took %v", took)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("exit status %v, want killed by SIGTERM", p.err)
	}
	mustStillHave(ctx, t, program{dir: p.cmd.Dir}, id)
}

func mustStillHave(ctx context.Context, t *testing.T, p program, id int64) {
	t.Helper()
	if _, err := p.start(t).client(t, 1<<20).GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
