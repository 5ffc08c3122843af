package postgres

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/user"
)

// node is a store with the rows that it has published.
type node struct {
	*Store

	mu       sync.Mutex
	changes  []user.CommittedChange
	reached  chan struct{} // closed at position target
	target   int64
	disorder string
}

func openNode(t *testing.T, opts Options) *node {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &node{Store: s}
	s.Observe(n.observe)
	return n
}

// observe records the changes, and whether a position does not follow the one before.
func (n *node) observe(c user.Commit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range c.Changes {
		for _, row := range c.Changes[i].Rows {
			if last := n.last(); row.Position != last+1 && n.disorder == "" {
				n.disorder = fmt.Sprintf("position %d was published after %d", row.Position, last)
			}
			n.changes = append(n.changes, user.CommittedChange{
				UserID: row.UserID, User: c.Changes[i].User, Rows: []user.Activity{row}, Origin: c.Changes[i].Origin,
			})
			if row.Position == n.target {
				close(n.reached)
				n.target = 0
			}
		}
	}
}

func (n *node) last() int64 {
	if len(n.changes) == 0 {
		return 0
	}
	return n.changes[len(n.changes)-1].Rows[0].Position
}

// await waits until the node has published a position.
func (n *node) await(t *testing.T, position int64) {
	t.Helper()
	n.mu.Lock()
	if n.last() >= position {
		n.mu.Unlock()
		return
	}
	reached := make(chan struct{})
	n.target, n.reached = position, reached
	n.mu.Unlock()
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		t.Fatalf("position %d was not published, the last one is %d", position, n.last())
	}
}

func (n *node) create(ctx context.Context, name string, origin uint64) (user.Result, error) {
	op, err := user.NewCreate(user.User{Username: name, Email: name + "@example.org"})
	if err != nil {
		return user.Result{}, err
	}
	return user.ApplyOne(ctx, n.Store, user.Change{Op: op, By: user.Author{Origin: origin}})
}

// Each node publishes the commits of all nodes in the order of positions, its own before their results, and with their
// origin.
func TestNodesPublishAllCommits(t *testing.T) {
	for name, opts := range map[string]Options{
		"notified": {pollInterval: time.Hour}, "polled": {NoListen: true, pollInterval: 5 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const writers, creates = 4, 25
			opts.URL = pgtest.Database(t)
			nodes := []*node{openNode(t, opts), openNode(t, opts), openNode(t, opts)}
			var running sync.WaitGroup
			for i, n := range nodes {
				for w := range writers {
					running.Go(func() {
						for k := range creates {
							r, err := n.create(t.Context(), fmt.Sprintf("user%d-%d-%d", i, w, k), uint64(i)+1)
							n.mu.Lock()
							last := n.last()
							n.mu.Unlock()
							if err != nil || last < r.Position {
								t.Errorf("create on node %d = position %d, %v; published up to %d", i, r.Position, err, last)
							}
						}
					})
				}
			}
			running.Wait()
			for i, n := range nodes {
				n.await(t, int64(len(nodes)*writers*creates))
				n.mu.Lock()
				if n.disorder != "" {
					t.Errorf("node %d: %s", i, n.disorder)
				}
				own := 0
				for _, c := range n.changes {
					if c.Origin == uint64(i)+1 {
						own++
					} else if c.Origin != 0 {
						t.Errorf("node %d: position %d has origin %d, want none", i, c.Rows[0].Position, c.Origin)
					}
					if c.User == nil || c.User.ID != c.UserID || c.User.StatusPosition != c.Rows[0].Position {
						t.Errorf("node %d: position %d of user %d has user %+v", i, c.Rows[0].Position, c.UserID, c.User)
					}
				}
				if own != writers*creates {
					t.Errorf("node %d: %d changes have its origin, want %d", i, own, writers*creates)
				}
				n.mu.Unlock()
			}
		})
	}
}

// A transaction that commits late is not behind a position that was published. The same test finds a bare sequence in
// place of the counter row.
func TestLateCommit(t *testing.T) {
	for name, planted := range map[string]bool{"counter row": false, "planted: bare sequence": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			held, resume := make(chan struct{}), make(chan struct{})
			var once sync.Once
			opts := Options{URL: url, pollInterval: 5 * time.Millisecond, bareSequence: planted}
			fast, reader := openNode(t, opts), openNode(t, opts)
			opts.inject = func(point string) error {
				if point == beforeDecide {
					once.Do(func() { close(held); <-resume })
				}
				return nil
			}
			late := openNode(t, opts)
			if planted {
				execute(t, url, "CREATE SEQUENCE positions")
			}
			var writes sync.WaitGroup
			create := func(n *node, name string) {
				if _, err := n.create(t.Context(), name, 0); err != nil {
					t.Error(err)
				}
			}
			writes.Go(func() { create(late, "late") })
			<-held
			written := make(chan struct{})
			writes.Go(func() { create(fast, "fast"); close(written) })
			if planted {
				reader.await(t, 2)
			} else {
				select {
				case <-written:
					t.Error("a transaction was committed before the one with the position before")
				case <-time.After(300 * time.Millisecond): // it waits for the late one
				}
			}
			close(resume)
			writes.Wait()
			reader.await(t, 2)
			reader.mu.Lock()
			defer reader.mu.Unlock()
			if found := reader.disorder != ""; found != planted {
				t.Errorf("disorder = %q, want one: %t", reader.disorder, planted)
			}
		})
	}
}

func execute(t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Error(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// lockUsers locks the table of users, for reads too, until unlock is called.
func lockUsers(t *testing.T, url string) (unlock func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// The state of the transaction in the database decides the outcome of a commit whose response was lost.
func TestLostResponse(t *testing.T) {
	url := pgtest.Database(t)
	lost := true
	n := openNode(t, Options{URL: url, inject: func(point string) error {
		if point == afterCommit && lost {
			lost = false
			return io.ErrUnexpectedEOF
		}
		return nil
	}})
	op, err := user.NewCreate(user.User{Username: "anna", Email: "anna@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	change := user.Change{Op: op, IdempotencyKey: &user.IdempotencyKey{Caller: "c", Procedure: "p", ID: "1"}}
	first, err := user.ApplyOne(t.Context(), n.Store, change)
	if err != nil || lost {
		t.Fatalf("create whose response was lost = %v, want success", err)
	}
	again, err := user.ApplyOne(t.Context(), n.Store, change)
	if err != nil || again.Position != first.Position || again.User.ID != first.User.ID {
		t.Errorf("repeated request = %+v, %v, want %+v", again, err, first)
	}
	if err := n.resolve(n.transactions.Add(1), io.ErrUnexpectedEOF); !isStoreError(err) || !user.HasReason(translate(err), user.StoreUnavailable) {
		t.Errorf("resolve of a transaction that was not committed = %v, want an error", err)
	}
}

// A change that the database rejects fails alone.
func TestRejectedChangeFailsAlone(t *testing.T) {
	n := openNode(t, Options{URL: pgtest.Database(t)})
	first, err := n.create(t.Context(), "anna", 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := func(action string) user.Change {
		return user.Change{Op: &user.Record{ID: first.User.ID, Action: action}}
	}
	results, err := user.Apply(t.Context(), n.Store, user.Batch{Changes: []user.Change{seen("app.a"), seen("app.\x00"), seen("app.b")}})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if failed := r.Err != nil; failed != (i == 1) || !failed && r.Position != int64(i/2)+2 {
			t.Errorf("result %d = %+v, want a failure: %t", i, r, i == 1)
		}
	}
}

// A node that hangs while it holds the counter row delays other nodes until the server disconnects it. Its own changes
// are then applied once.
func TestHungNodeIsDisconnected(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	held, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hung := openNode(t, Options{URL: url + "&idle_in_transaction_session_timeout=200", inject: func(point string) error {
		if point == beforeDecide {
			once.Do(func() { close(held); <-resume })
		}
		return nil
	}})
	other := openNode(t, Options{URL: url})
	done := make(chan error)
	go func() {
		_, err := hung.create(t.Context(), "anna", 0)
		done <- err
	}()
	<-held
	if r, err := other.create(t.Context(), "berta", 0); err != nil || r.Position != 1 {
		t.Errorf("create on the other node = %+v, %v, want position 1", r, err)
	}
	close(resume)
	if err := <-done; err != nil {
		t.Errorf("create on the node that was disconnected = %v, want success", err)
	}
	other.await(t, 2)
	if _, err := other.create(t.Context(), "anna", 0); !user.HasReason(err, user.UsernameTaken) {
		t.Errorf("second create = %v, want USERNAME_TAKEN", err)
	}
}

// A request that is sent to several nodes at the same time takes effect once.
func TestDuplicateRequestsOnNodes(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	nodes := []*node{openNode(t, Options{URL: url}), openNode(t, Options{URL: url})}
	created, err := nodes[0].create(t.Context(), "anna", 0)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			for request := range 10 {
				r, err := user.ApplyOne(t.Context(), nodes[i%2].Store, user.Change{
					Op:             &user.Record{ID: created.User.ID, Action: "app.seen"},
					IdempotencyKey: &user.IdempotencyKey{Caller: "c", Procedure: "p", ID: fmt.Sprint(request)},
				})
				if err != nil || len(r.Rows) != 1 || r.Rows[0].Position != r.Position {
					t.Errorf("request %d = %+v, %v, want one row", request, r, err)
				}
			}
		})
	}
	running.Wait()
	if head, err := nodes[0].Head(t.Context()); err != nil || head.Position != 11 {
		t.Errorf("Head = %+v, %v, want position 11", head, err)
	}
}

// A node whose connections are lost without a reset, as after a failover, opens others and receives the commits that it
// has missed.
func TestLostConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	p := pgtest.NewProxy(t, url)
	defer p.Close() // before the store, which would wait for the connections
	cutOff := openNode(t, Options{URL: p.URL, pollInterval: 20 * time.Millisecond, catchUpTimeout: 500 * time.Millisecond})
	other := openNode(t, Options{URL: url})
	if _, err := cutOff.create(t.Context(), "anna", 0); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p.Freeze()
		r, err := other.create(t.Context(), fmt.Sprint("berta", i), 0)
		if err != nil {
			t.Fatal(err)
		}
		cutOff.await(t, r.Position)
		if _, err := cutOff.create(t.Context(), fmt.Sprint("carla", i), 0); err != nil {
			t.Errorf("create after the connections were lost = %v, want success", err)
		}
	}
}

// A node that has published commits which its database has lost, as in a failover, reads and publishes those that have their positions now.
func TestPublishedCommitsAreLost(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	n := openNode(t, Options{URL: url, NoListen: true, pollInterval: time.Hour})
	other := openNode(t, Options{URL: url})
	for _, name := range []string{"anna", "berta"} {
		if _, err := other.create(t.Context(), name, 0); err != nil {
			t.Fatal(err)
		}
	}
	catchUp := func(want int64) {
		t.Helper()
		if err := n.feed.catchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := n.feed.head.Load().Position; got != want {
			t.Fatalf("head = %d, want %d", got, want)
		}
	}
	wantLog := func(rows int, reached int64) {
		t.Helper()
		page, err := n.Log(t.Context(), user.LogQuery{After: 1, MaxRows: 10})
		if err != nil || len(page.Rows) != rows || page.Reached != reached {
			t.Fatalf("Log = %d rows up to %d, %v, want %d up to %d", len(page.Rows), page.Reached, err, rows, reached)
		}
	}
	catchUp(2)
	wantLog(1, 2)
	execute(t, url, "DELETE FROM log WHERE position = 2; DELETE FROM users WHERE username = 'berta'; UPDATE meta SET position = 1")
	wantLog(0, 1)
	catchUp(1)
	created, err := other.create(t.Context(), "carla", 0)
	if err != nil || created.Position != 2 {
		t.Fatalf("create = position %d, %v, want 2", created.Position, err)
	}
	catchUp(2)
	wantLog(1, 2)
	if got := n.changes[len(n.changes)-1].UserID; got != created.User.ID {
		t.Errorf("last published change is of user %d, want %d", got, created.User.ID)
	}
}
