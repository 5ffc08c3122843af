package postgres

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/user"
)

// reads counts reads by source.
type reads struct {
	mu     sync.Mutex
	counts map[string]int
}

func (r *reads) count(source string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[string]int)
	}
	r.counts[source]++
}

// take returns the counts since the last call.
func (r *reads) take() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := maps.Clone(r.counts)
	clear(r.counts)
	return taken
}

// startServer starts a server until the end of the test.
func startServer(t *testing.T, server *pgtest.Server, err error) *pgtest.Server {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	return server
}

// replicated is a store with a streaming replica.
type replicated struct {
	*node
	reads            *reads
	primary, standby *pgtest.Server
	created          int
}

func openReplicated(t *testing.T) *replicated {
	t.Helper()
	r := &replicated{reads: &reads{}}
	primary, err := pgtest.NewServer()
	r.primary = startServer(t, primary, err)
	openNode(t, Options{URL: r.primary.URL()}) // creates the tables
	standby, err := r.primary.NewReplica()
	r.standby = startServer(t, standby, err)
	r.node = openNode(t, Options{URL: r.primary.URL(), ReplicaURL: r.standby.URL(), OnRead: r.reads.count})
	return r
}

// createAndRead creates a user and reads it at once. A stale read fails the test.
func (r *replicated) createAndRead(t *testing.T) {
	t.Helper()
	r.created++
	name := fmt.Sprint("user", r.created)
	created, err := r.create(t.Context(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Get(t.Context(), created.User.ID); err != nil || got.Username != name {
		t.Fatalf("Get after create = %+v, %v, want %s", got, err, name)
	}
	list, err := r.List(t.Context(), user.ListQuery{Order: user.ByLastActivity, Desc: true, MaxUsers: 1, MaxScanned: 10})
	if err != nil || len(list.Users) != 1 || list.Users[0].ID != created.User.ID {
		t.Fatalf("List after create = %+v, %v, want user %d", list, err, created.User.ID)
	}
	page, err := r.Log(t.Context(), user.LogQuery{After: created.Position - 1, MaxRows: 1})
	if err != nil || len(page.Rows) != 1 || page.Rows[0].Position != created.Position {
		t.Fatalf("Log after create = %+v, %v, want position %d", page, err, created.Position)
	}
	// A change without a row.
	at := created.User.StatusTime.Add(time.Second)
	change := user.Change{Op: &user.SetStatus{ID: created.User.ID, Status: created.User.Status, Time: at}}
	if _, err := user.ApplyOne(t.Context(), r.Store, change); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Get(t.Context(), created.User.ID); err != nil || !got.StatusTime.Equal(at) {
		t.Fatalf("Get after a later time of the status = %v, %v, want %v", got.StatusTime, err, at)
	}
}

// awaitReplica reads until the replica is read.
func (r *replicated) awaitReplica(t *testing.T) {
	t.Helper()
	r.reads.take()
	for end := time.Now().Add(20 * time.Second); r.reads.take()[ReadReplica] == 0; {
		if time.Now().After(end) {
			t.Fatal("the replica is not read")
		}
		if _, err := r.Statuses(t.Context(), []int64{1}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantPrimary checks that only the primary was read.
func (r *replicated) wantPrimary(t *testing.T, when string) {
	t.Helper()
	if counts := r.reads.take(); counts[ReadReplica] > 0 || counts[ReadPrimary] == 0 {
		t.Errorf("reads %s = %v, want the primary only", when, counts)
	}
}

// Reads come from a replica that has reached the head, otherwise from the primary, without errors and never stale.
func TestReplica(t *testing.T) {
	t.Parallel()
	r := openReplicated(t)
	r.awaitReplica(t)
	for range 50 {
		r.createAndRead(t)
	}
	t.Logf("reads directly after writes: %v", r.reads.take())
	r.awaitReplica(t)

	execute(t, r.standby.URL(), "SELECT pg_wal_replay_pause()")
	awaitPaused(t, r.standby.URL())
	r.createAndRead(t)
	r.reads.take()
	for range 10 {
		r.createAndRead(t)
	}
	r.wantPrimary(t, "while the replay is paused")
	execute(t, r.standby.URL(), "SELECT pg_wal_replay_resume()")
	r.awaitReplica(t)

	if err := r.standby.Kill(); err != nil {
		t.Fatal(err)
	}
	r.createAndRead(t)
	r.reads.take()
	for range 10 {
		r.createAndRead(t)
	}
	r.wantPrimary(t, "without the replica")
	if err := r.standby.Start(); err != nil {
		t.Fatal(err)
	}
	r.awaitReplica(t)
	r.createAndRead(t)
}

// Reads of a user do not go back, although the primary shows commits before they are published.
func TestReadsOfReplicaNeverGoBack(t *testing.T) {
	t.Parallel()
	r := openReplicated(t)
	r.awaitReplica(t)
	created, err := r.create(t.Context(), "ann", 0)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range 300 {
			status := user.StatusActive + user.Status(1+i)%2
			if _, err := user.ApplyOne(t.Context(), r.Store, user.Change{Op: &user.SetStatus{ID: created.User.ID, Status: status}}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var last atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-written:
					return
				default:
				}
				least := last.Load()
				u, err := r.Get(t.Context(), created.User.ID)
				if err != nil || u.Version < least {
					t.Errorf("Get = %+v, %v, want version %d or later", u, err, least)
					return
				}
				advance(&last, u.Version)
			}
		})
	}
	readers.Wait()
	<-written
	if counts := r.reads.take(); counts[ReadReplica] == 0 || counts[ReadPrimary] == 0 {
		t.Errorf("reads = %v, want some of each database", counts)
	} else {
		t.Logf("reads beside writes: %v", counts)
	}
}

// awaitPaused waits until the replay is paused.
func awaitPaused(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for state := ""; state != "paused"; {
		if err := conn.QueryRow(t.Context(), "SELECT pg_get_wal_replay_pause_state()").Scan(&state); err != nil {
			t.Fatal(err)
		}
	}
}

// A replica whose connections hang delays a read by the timeout of a read, and the reads after it not at all.
func TestHungReplica(t *testing.T) {
	t.Parallel()
	r := openReplicated(t)
	p := pgtest.NewProxy(t, r.standby.URL())
	hung := &replicated{reads: &reads{}}
	hung.node = openNode(t, Options{URL: r.primary.URL(), ReplicaURL: p.URL, OnRead: hung.reads.count})
	defer p.Close() // before the store, which would wait for the connections
	hung.awaitReplica(t)
	p.Freeze()
	hung.createAndRead(t)
	hung.awaitReplica(t) // by new connections
}

// A server that is not a replica of the primary is refused at the start.
func TestReplicaOfAnotherStore(t *testing.T) {
	t.Parallel()
	one, err := pgtest.NewServer()
	startServer(t, one, err)
	openNode(t, Options{URL: one.URL()})
	execute(t, one.URL(), "CREATE DATABASE other")
	other := "postgres://postgres@/other?host=" + one.Socket()[:len(one.Socket())-len("/.s.PGSQL.5432")]
	openNode(t, Options{URL: other})
	two := pgtest.Database(t)
	openNode(t, Options{URL: two})
	for name, replica := range map[string]string{"another epoch": other, "another system": two} {
		s, err := Open(t.Context(), Options{URL: one.URL(), ReplicaURL: replica})
		if err == nil {
			t.Errorf("%s: Open succeeded, want an error", name)
			_ = s.Close()
			continue
		}
		t.Log(err)
	}
}
