package main_test

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/store/pgtest"
)

// nodes are processes on one database, with the users that they have acknowledged.
type nodes struct {
	database  *pgtest.Server
	processes []*process
	clients   []userv1connect.UserServiceClient

	mu    sync.Mutex
	acked map[string]int64 // id by username
	last  int64            // position of the last one
}

// startNodes starts a database and two processes.
func startNodes(t *testing.T) *nodes {
	t.Helper()
	database, err := pgtest.NewServer()
	n := &nodes{database: startDatabase(t, database, err)}
	n.start(t, n.database.URL(), n.database.URL())
	return n
}

// start starts a process for each URL of the database.
func (n *nodes) start(t *testing.T, urls ...string) {
	t.Helper()
	for _, url := range urls {
		n.add(t, program{dir: t.TempDir(), flags: []string{"--store", url}})
	}
}

func (n *nodes) add(t *testing.T, p program) {
	t.Helper()
	process, number := p.start(t), len(n.processes)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("node %d:\n%s", number, process.output)
		}
	})
	n.processes, n.clients = append(n.processes, process), append(n.clients, process.client(t, 1<<20))
}

// startDatabase starts a database until the end of the test.
func startDatabase(t *testing.T, database *pgtest.Server, err error) *pgtest.Server {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := database.Start(); err != nil {
		t.Fatal(err)
	}
	return database
}

// create creates a user on a node. While the outcome is unknown it repeats the request, on the other node in turn.
func (n *nodes) create(ctx context.Context, node int, name string) error {
	req := &userv1.CreateUserRequest{Username: name, Email: name + "@example.org", RequestId: uuid.NewString()}
	for ; ; node++ {
		resp, err := n.clients[node%len(n.clients)].CreateUser(ctx, req)
		if err == nil {
			n.mu.Lock()
			if n.acked == nil {
				n.acked = make(map[string]int64)
			}
			n.acked[name], n.last = resp.GetUser().GetUserId(), max(n.last, resp.GetUser().GetLastActivityId())
			n.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil || !broken(err) {
			return fmt.Errorf("create %s: %w", name, err)
		}
	}
}

// write creates users on both nodes until stop is closed.
func (n *nodes) write(ctx context.Context, t *testing.T, stop <-chan struct{}) (wait func()) {
	t.Helper()
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := n.create(ctx, w, fmt.Sprintf("user-%d-%d", w, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return writers.Wait
}

// awaitAcked waits until further users were acknowledged.
func (n *nodes) awaitAcked(ctx context.Context, t *testing.T, more int) {
	t.Helper()
	count := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.acked)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for target := count() + more; count() < target; {
		select {
		case <-ctx.Done():
			t.Fatalf("%d users acknowledged, want %d", count(), target)
		case <-tick.C:
		}
	}
}

// verify checks on a node that each acknowledged user was created once, and that the log has no gap.
func (n *nodes) verify(ctx context.Context, t *testing.T, client userv1connect.UserServiceClient) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	created := make(map[int64]int)
	last := int64(0)
	for last < n.last && stream.Receive() { // the node may be behind the one that acknowledged the last user
		if at := stream.Msg().GetActivityId(); at != last+1 {
			t.Errorf("position %d follows %d", at, last)
		}
		last = stream.Msg().GetActivityId()
		created[stream.Msg().GetUserId()]++
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	for name, id := range n.acked {
		if created[id] != 1 {
			t.Errorf("user %s with id %d was created %d times, want once", name, id, created[id])
		}
	}
	if int(last) != len(n.acked) {
		t.Errorf("the log has %d rows for %d acknowledged users", last, len(n.acked))
	}
}

// watchHealth waits until processes serve writes. The result waits until they have another health, within five seconds.
func (n *nodes) watchHealth(ctx context.Context, t *testing.T, processes ...*process) (await func(grpchealth.Status)) {
	t.Helper()
	http2, closeIdle := newHTTP2(1 << 20)
	t.Cleanup(closeIdle)
	var watches []<-chan grpchealth.WatchEvent
	for _, p := range processes {
		client := grpchealth.NewClient(http2, p.url(), connect.WithGRPC())
		watches = append(watches, client.Watch(ctx, &grpchealth.CheckRequest{Service: writesName}))
	}
	await = func(want grpchealth.Status) {
		t.Helper()
		start := time.Now()
		for i, events := range watches {
			for event := range events {
				if event.Err != nil {
					t.Fatalf("health watch of process %d: %v\n%s", i, event.Err, processes[i].output)
				}
				if event.Response.Status == want {
					break
				}
			}
		}
		took := time.Since(start)
		t.Logf("health is %v after %v", want, took)
		if took > 5*time.Second {
			t.Errorf("health was %v after %v, want within 5 s", want, took)
		}
	}
	await(grpchealth.StatusServing)
	return await
}

// follow reads a stream of a node, and resumes it when it is interrupted. The result ends it and checks that it has the
// rows of all acknowledged users, without a gap or a duplicate.
func (n *nodes) follow(ctx context.Context, t *testing.T, node int) (end func()) {
	t.Helper()
	streaming, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	var last atomic.Int64
	go func() {
		for {
			stream, err := n.clients[node].StreamUserActivities(streaming, &userv1.StreamUserActivitiesRequest{AfterActivityId: last.Load()})
			for err == nil && stream.Receive() {
				if at := stream.Msg().GetActivityId(); !last.CompareAndSwap(at-1, at) {
					done <- fmt.Errorf("position %d follows %d", at, last.Load())
					return
				}
			}
			if err == nil {
				err = stream.Err()
			}
			if err == nil || !broken(err) || streaming.Err() != nil {
				done <- err
				return
			}
		}
	}()
	return func() {
		t.Helper()
		defer cancel()
		await(t, "the stream", func() bool { return last.Load() >= n.last || len(done) > 0 })
		if len(done) > 0 {
			t.Errorf("stream of node %d at position %d: %v", node, last.Load(), <-done)
		}
	}
}

// A node that is killed loses no acknowledged write, and its requests have one effect when they are repeated on the other
// node, whose stream has no gap.
func TestPostgresNodeKilled(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	n := startNodes(t)
	endStream := n.follow(ctx, t, 1)
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	n.awaitAcked(ctx, t, 200)
	n.processes[0].kill()
	n.awaitAcked(ctx, t, 200)
	close(stop)
	wait()
	endStream()
	n.verify(ctx, t, n.clients[1])
}

// A node that is killed while it migrates the schema leaves no lock and no table, and the next one migrates.
func TestPostgresKilledInMigration(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	url := pgtest.Database(t)
	var sessions [2]*pgx.Conn
	for i := range sessions {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(ctx) })
		sessions[i] = conn
	}
	number := func(query string) (n int) {
		if err := sessions[1].QueryRow(ctx, query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// The first migration waits for the end of a transaction that has created a table of this name.
	blocker, err := sessions[0].Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blocker.Exec(ctx, "CREATE TABLE log ()"); err != nil {
		t.Fatal(err)
	}
	killed := exec.CommandContext(ctx, build(t, ""), "--listen", "127.0.0.1:0", "--admin-listen", "", "--store", url)
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	for number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'") == 0 {
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // the signal
	if err := blocker.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	for number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'userd'") > 0 {
	}
	const tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'"
	if n := number(tables); n != 0 {
		t.Errorf("%d tables after the kill, want none but the version", n)
	}
	n := &nodes{acked: make(map[string]int64)}
	n.start(t, url)
	if err := n.create(ctx, 0, "ann"); err != nil {
		t.Fatal(err)
	}
}

// Health follows a database that crashes and starts again within five seconds. The nodes need no restart, and no
// acknowledged write is lost.
func TestPostgresRestarted(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	n := startNodes(t)
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	n.awaitAcked(ctx, t, 100)
	await := n.watchHealth(ctx, t, n.processes...)
	for range 2 {
		if err := n.database.Kill(); err != nil {
			t.Fatal(err)
		}
		await(grpchealth.StatusNotServing)
		if err := n.database.Start(); err != nil {
			t.Fatal(err)
		}
		await(grpchealth.StatusServing)
		n.awaitAcked(ctx, t, 50)
	}
	close(stop)
	wait()
	for _, client := range n.clients {
		n.verify(ctx, t, client)
	}
}
