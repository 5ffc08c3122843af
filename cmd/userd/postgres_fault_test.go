package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/store/pgtest"
)

// execute runs a statement in a session of its own.
func execute(ctx context.Context, t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
}

// count returns the number of users in the database.
func count(ctx context.Context, t *testing.T, url string) (users int) {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM users").Scan(&users); err != nil {
		t.Fatal(err)
	}
	return users
}

// startWithStandby starts a database with a synchronous standby, and two nodes that know both.
func startWithStandby(ctx context.Context, t *testing.T) (n *nodes, standby *pgtest.Server) {
	t.Helper()
	database, err := pgtest.NewServer()
	n = &nodes{database: startDatabase(t, database, err)}
	standby, err = n.database.NewReplica()
	standby = startDatabase(t, standby, err)
	execute(ctx, t, n.database.URL(), "ALTER SYSTEM SET synchronous_standby_names = '*'")
	execute(ctx, t, n.database.URL(), "SELECT pg_reload_conf()")
	url := fmt.Sprintf("postgres://postgres@/postgres?host=%s,%s&target_session_attrs=read-write",
		filepath.Dir(n.database.Socket()), filepath.Dir(standby.Socket()))
	n.start(t, url, url)
	return n, standby
}

// When the primary is killed and the synchronous standby is promoted, the nodes go on without a restart: no acknowledged
// write is lost, the streams have no gap, and health follows within five seconds.
func TestPostgresFailover(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	n, standby := startWithStandby(ctx, t)
	await := n.watchHealth(ctx, t, n.processes...)
	endStreams := []func(){n.follow(ctx, t, 0), n.follow(ctx, t, 1)}
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	n.awaitAcked(ctx, t, 200)
	if err := n.database.KillPostmaster(); err != nil {
		t.Fatal(err)
	}
	await(grpchealth.StatusNotServing)
	execute(ctx, t, standby.URL(), "SELECT pg_promote()")
	await(grpchealth.StatusServing)
	n.awaitAcked(ctx, t, 200)
	close(stop)
	wait()
	for i, client := range n.clients {
		endStreams[i]()
		n.verify(ctx, t, client)
	}
}

// While the synchronous standby is lost, no write is acknowledged or visible. When the primary is killed then and the
// standby promoted, it has all that was.
func TestPostgresStandbyLost(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	n, standby := startWithStandby(ctx, t)
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	n.awaitAcked(ctx, t, 50)
	close(stop)
	wait()
	if err := standby.Kill(); err != nil {
		t.Fatal(err)
	}
	// Until the timeouts of a transaction and of the search for its outcome have passed, and those of its repetition.
	req := &userv1.CreateUserRequest{Username: "late", Email: "late@example.org", RequestId: uuid.NewString()}
	for i := range 2 {
		resp, err := n.clients[i].CreateUser(ctx, req)
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("create without the standby = %v, %v, want UNAVAILABLE", resp, err)
		}
		t.Logf("create without the standby: %v", err)
		if users := count(ctx, t, n.database.URL()); users != len(n.acked) {
			t.Errorf("%d users are visible, want %d acknowledged ones", users, len(n.acked))
		}
	}
	if err := n.database.KillPostmaster(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	execute(ctx, t, standby.URL(), "SELECT pg_promote()")
	if err := n.create(ctx, 0, "after"); err != nil {
		t.Fatal(err)
	}
	for _, client := range n.clients {
		n.verify(ctx, t, client)
	}
}

// A request whose commit succeeded, but whose response from the database was lost, takes effect once.
func TestPostgresLostCommits(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	database, err := pgtest.NewServer()
	n := &nodes{database: startDatabase(t, database, err)}
	lossy := pgtest.NewProxy(t, n.database.URL())
	n.start(t, lossy.URL, n.database.URL())
	lossy.LoseCommits(5)
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	n.awaitAcked(ctx, t, 500)
	close(stop)
	wait()
	lossy.LoseCommits(0)
	n.processes[0].output.await(t, "transaction was committed although its connection was lost")
	for _, client := range n.clients {
		n.verify(ctx, t, client)
	}
}

// A node that is separated from the database is unhealthy within five seconds, and does not delay the other node. It
// goes on when the partition has healed.
func TestPostgresPartition(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	database, err := pgtest.NewServer()
	n := &nodes{database: startDatabase(t, database, err)}
	network := pgtest.NewProxy(t, n.database.URL())
	n.start(t, network.URL, n.database.URL())
	await := n.watchHealth(ctx, t, n.processes[0])
	endStream := n.follow(ctx, t, 0)
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	for range 2 {
		n.awaitAcked(ctx, t, 100)
		network.Partition()
		await(grpchealth.StatusNotServing)
		n.awaitAcked(ctx, t, 100) // on the other node
		network.Heal()
		await(grpchealth.StatusServing)
	}
	n.awaitAcked(ctx, t, 100)
	close(stop)
	wait()
	endStream()
	for _, client := range n.clients {
		n.verify(ctx, t, client)
	}
}

// While all transactions fail with serialization failures, the nodes are unhealthy. They need no restart afterwards.
// Without a storm, conflicts of serializable transactions are not visible to callers.
func TestPostgresSerializationFailures(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	database, err := pgtest.NewServer()
	n := &nodes{database: startDatabase(t, database, err)}
	url := n.database.URL() + "&default_transaction_isolation=serializable"
	n.start(t, url, url)
	await := n.watchHealth(ctx, t, n.processes...)
	stop := make(chan struct{})
	wait := n.write(ctx, t, stop)
	n.awaitAcked(ctx, t, 200)
	execute(ctx, t, n.database.URL(), `CREATE FUNCTION fail() RETURNS trigger AS $$ BEGIN
		RAISE EXCEPTION 'injected' USING ERRCODE = 'serialization_failure'; END $$ LANGUAGE plpgsql;
		CREATE TRIGGER fail BEFORE UPDATE ON meta FOR EACH ROW EXECUTE FUNCTION fail();
		CREATE TRIGGER fail BEFORE UPDATE ON probe FOR EACH ROW EXECUTE FUNCTION fail()`)
	await(grpchealth.StatusNotServing)
	execute(ctx, t, n.database.URL(), "DROP FUNCTION fail CASCADE")
	await(grpchealth.StatusServing)
	n.awaitAcked(ctx, t, 200)
	close(stop)
	wait()
	for _, client := range n.clients {
		n.verify(ctx, t, client)
	}
}

// Reads that hang fail in bounded time, also those of other callers, which are served as soon as the reads succeed. The
// health does not change, and writes are not delayed.
func TestPostgresReadsHang(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	n := startNodes(t)
	if err := n.create(ctx, 0, "ann"); err != nil {
		t.Fatal(err)
	}
	id := n.acked["ann"]
	http2, closeIdle := newHTTP2(1 << 20)
	t.Cleanup(closeIdle)
	watching, endWatch := context.WithCancel(ctx)
	health := grpchealth.NewClient(http2, n.processes[0].url(), connect.WithGRPC()).Watch(watching, &grpchealth.CheckRequest{Service: writesName})
	lock, err := pgx.Connect(ctx, n.database.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close(ctx) }()
	if _, err := lock.Exec(ctx, "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	var reads sync.WaitGroup
	for range 64 {
		reads.Go(func() {
			for range 2 {
				start := time.Now()
				_, err := n.clients[0].GetUser(ctx, &userv1.GetUserRequest{UserId: id})
				if took := time.Since(start); connect.CodeOf(err) != connect.CodeUnavailable || took > 10*time.Second {
					t.Errorf("GetUser while reads hang = %v after %v, want UNAVAILABLE", err, took)
				}
			}
		})
	}
	reads.Wait()
	if _, err := lock.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.clients[0].GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
		t.Errorf("GetUser after reads have hung: %v", err)
	}
	endWatch()
	for event := range health {
		if event.Err == nil && event.Response.Status != grpchealth.StatusServing {
			t.Errorf("health became %v while reads hung", event.Response.Status)
		}
	}
}

// Nodes whose clocks differ by minutes write in one order of time, and repeat each other's results.
func TestPostgresClocksDiffer(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	database, err := pgtest.NewServer()
	n := &nodes{database: startDatabase(t, database, err)}
	for i, offset := range []string{"0s", "7m", "-5m"} {
		file := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(offset), 0o600); err != nil {
			t.Fatal(err)
		}
		n.add(t, program{
			dir: t.TempDir(), fault: "clock", env: []string{"USERD_FAULT_CLOCK=" + file}, flags: []string{"--store", n.database.URL()},
		})
	}
	if err := n.create(ctx, 0, "ann"); err != nil {
		t.Fatal(err)
	}
	id := n.acked["ann"]
	for i := range 30 {
		client, other := n.clients[i%3], n.clients[(i+1)%3]
		status := userv1.UserStatus(1 + i%2)
		req := &userv1.UpdateUserStatusRequest{UserId: id, Status: status, RequestId: uuid.NewString()}
		first, err := client.UpdateUserStatus(ctx, req)
		if err != nil || first.GetStatusUpdate().GetStatus() != status {
			t.Fatalf("status %d on node %d = %v, %v, want %v", i, i%3, first, err, status)
		}
		again, err := other.UpdateUserStatus(ctx, req)
		if err != nil || again.GetStatusUpdate().GetActivityId() != first.GetStatusUpdate().GetActivityId() {
			t.Errorf("repeated on another node = %v, %v, want %v", again, err, first)
		}
	}
	stream, err := n.clients[0].StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for last := new(userv1.UserActivity); stream.Receive(); last = stream.Msg() {
		if at := stream.Msg(); at.GetActivityId() != last.GetActivityId()+1 || at.GetTimestamp().AsTime().Before(last.GetTimestamp().AsTime()) {
			t.Errorf("row %v follows %v", at, last)
		}
	}
	if err := stream.Err(); err != nil {
		t.Error(err)
	}
}
