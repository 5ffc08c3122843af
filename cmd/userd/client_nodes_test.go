package main_test

import (
	"context"
	"fmt"
	"iter"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/store/pgtest"
)

// The Go client completes batches, delivers each row of the log once, and keeps a mirror, although its nodes are killed and
// drained meanwhile. The same check finds a planted fault of the client.
func TestClientOutlivesNodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		nodes   func(*testing.T) []program
		options []client.Option
		want    bool // a fault is found
	}{
		{"a node with SQLite", newSQLiteNode, nil, false},
		{"two nodes with PostgreSQL", newPostgresNodes, nil, false},
		{"planted: new request ids", newSQLiteNode, []client.Option{client.WithInterceptors(newRequestIDs{})}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found := outliveNodes(t, test.nodes(t), test.options...)
			for range 3 { // a node may be ended when no item is in flight
				if test.want && found == nil {
					found = outliveNodes(t, test.nodes(t), test.options...)
				}
			}
			if (found != nil) != test.want {
				t.Errorf("fault = %v, want one: %t", found, test.want)
			}
		})
	}
}

func newSQLiteNode(t *testing.T) []program { return []program{{dir: t.TempDir()}} }

func newPostgresNodes(t *testing.T) []program {
	node := program{dir: t.TempDir(), flags: []string{"--store", pgtest.Database(t)}}
	return []program{node, node}
}

// endRows is the number of rows after which a node is ended.
const endRows = 2300

// outliveNodes runs batches while nodes are ended, and returns an error if an item was applied twice or not at all, a row
// was not delivered once, or a mirror differs.
func outliveNodes(t *testing.T, programs []program, options ...client.Option) error {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	nodes, targets := &mortalNodes{t: t}, []string(nil)
	for i, p := range programs {
		nodes.programs, nodes.running = append(nodes.programs, p), append(nodes.running, p.start(t))
		targets = append(targets, fmt.Sprintf("http://127.0.0.1:%d", i+1))
	}
	c, err := client.New(targets, append(options, client.WithDialer(nodes.dial))...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	u, err := c.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	mirror := c.Mirror(ctx, client.MirrorOptions{})
	defer mirror.Close()

	const items = 10_000
	var found error
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { found = followRows(ctx, c, 1+2*items, nodes.end) })
	updated, err := c.BatchUpdateUsers(ctx, sequence(items, func(i int) *userv1.UpdateUserRequest {
		return &userv1.UpdateUserRequest{UserId: u.GetUserId(), User: &userv1.User{Metadata: map[string]string{"n": strconv.Itoa(i)}}}
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	created, err := c.BatchCreateUsers(ctx, sequence(items, func(i int) *userv1.BatchCreateUsersRequest {
		return &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Username: fmt.Sprint("user ", i), Email: fmt.Sprintf("user%d@example.org", i)}}
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	after := getUser(ctx, t, c, u.GetUserId())
	if after.GetVersion() != 1+items || updated.Updated != items || created.Created != items {
		return fmt.Errorf("version = %d, want %d; %+v, %+v, want %d each", after.GetVersion(), 1+items, updated, created, items)
	}
	wg.Wait()
	if nodes.ended < 4 {
		t.Errorf("nodes were ended %d times, want at least 4", nodes.ended)
	}
	if err := mirror.WaitFor(ctx, 1+2*items); err != nil {
		return fmt.Errorf("mirror at position %d: %w", mirror.Status().Position, err)
	}
	copied, ok := mirror.Get(u.GetUserId())
	if !ok || !proto.Equal(copied, after) || mirror.Len() != 1+items {
		return fmt.Errorf("mirror of %d users has %v, want %d and %v", mirror.Len(), copied, 1+items, after)
	}
	return found
}

// getUser repeats the call while a node starts, which may take longer than the client's attempts.
func getUser(ctx context.Context, t *testing.T, c *client.Client, id int64) (u *userv1.User) {
	t.Helper()
	eventually(ctx, t, func(ctx context.Context) (err error) {
		u, err = c.GetUser(ctx, id)
		return err
	})
	return u
}

// followRows returns an error unless the rows have positions 1 to last. It calls end after each endRows rows.
func followRows(ctx context.Context, c *client.Client, last int64, end func()) error {
	next := int64(1)
	for row, err := range c.Activities(ctx, &userv1.StreamUserActivitiesRequest{}) {
		if err != nil {
			return err
		}
		if row.GetActivityId() != next {
			return fmt.Errorf("row %d has position %d", next, row.GetActivityId())
		}
		if next == last {
			break
		}
		if next%endRows == 0 {
			end()
		}
		next++
	}
	return nil
}

func sequence[T any](n int, item func(int) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := range n {
			if !yield(item(i)) {
				return
			}
		}
	}
}

// mortalNodes are nodes that are ended and started again, in turn.
type mortalNodes struct {
	t        *testing.T
	programs []program
	ended    int

	mu      sync.Mutex
	running []*process
}

// end kills or drains the next node, and starts it again.
func (m *mortalNodes) end() {
	i := m.ended % len(m.programs)
	m.mu.Lock()
	run := m.running[i]
	m.mu.Unlock()
	if m.ended%4 < 2 {
		run.kill()
	} else {
		run.terminate(m.t)
	}
	m.ended++
	run = m.programs[i].start(m.t)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[i] = run
}

// dial connects to the node of a target, whose port is its number.
func (m *mortalNodes) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	addr = m.running[number-1].addr
	m.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// newRequestIDs is an interceptor that gives each item that is sent a new request id.
type newRequestIDs struct{}

func (newRequestIDs) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (newRequestIDs) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (newRequestIDs) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return newRequestIDConn{next(ctx, spec)}
	}
}

type newRequestIDConn struct{ connect.StreamingClientConn }

func (c newRequestIDConn) Send(message any) error {
	switch item := message.(type) {
	case *userv1.UpdateUserRequest:
		item.RequestId = uuid.NewString()
	case *userv1.BatchCreateUsersRequest:
		item.User.RequestId = uuid.NewString()
	}
	return c.StreamingClientConn.Send(message)
}
