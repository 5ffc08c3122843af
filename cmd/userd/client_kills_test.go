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

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// The Go client completes batches, and delivers each row of the log once, although the server is killed meanwhile. The
// same check finds a planted fault of the client.
func TestClientOutlivesKills(t *testing.T) {
	t.Parallel()
	for _, planted := range []bool{false, true} {
		t.Run(fmt.Sprint("planted fault: ", planted), func(t *testing.T) {
			t.Parallel()
			var options []client.Option
			if planted {
				options = append(options, client.WithInterceptors(newRequestIDs{}))
			}
			found := outliveKills(t, options...)
			if (found != nil) != planted {
				t.Errorf("fault = %v, want one: %t", found, planted)
			}
		})
	}
}

// killRows is the number of rows after which the server is killed.
const killRows = 1700

// outliveKills runs batches while the server is killed, and returns an error if an item was applied twice or not at all,
// or a row was not delivered once.
func outliveKills(t *testing.T, options ...client.Option) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server := &mortalServer{program: program{dir: t.TempDir()}}
	server.start(t)
	c, err := client.New([]string{"http://localhost"}, append(options, client.WithDialer(server.dial))...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	u, err := c.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}

	const items = 5000
	var found error
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		last := int64(0)
		for row, err := range c.Activities(ctx, &userv1.StreamUserActivitiesRequest{}) {
			if err != nil {
				found = err
				return
			}
			if last++; row.GetActivityId() != last {
				found = fmt.Errorf("row %d has position %d", last, row.GetActivityId())
				return
			}
			if last%killRows == 0 {
				server.restart(t)
			}
			if last == 1+2*items {
				return
			}
		}
	})
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
	after, err := c.GetUser(ctx, u.GetUserId())
	if err != nil {
		t.Fatal(err)
	}
	if after.GetVersion() != 1+items || updated.Updated != items || created.Created != items {
		return fmt.Errorf("version = %d, want %d; %+v, %+v, want %d each", after.GetVersion(), 1+items, updated, created, items)
	}
	wg.Wait()
	if server.kills < 4 {
		t.Errorf("the server was killed %d times, want at least 4", server.kills)
	}
	return found
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

// mortalServer is a server that is killed and starts again with its store.
type mortalServer struct {
	program program
	kills   int

	mu      sync.Mutex
	running *process
}

func (m *mortalServer) start(t *testing.T) {
	run := m.program.start(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = run
}

func (m *mortalServer) restart(t *testing.T) {
	m.mu.Lock()
	run := m.running
	m.mu.Unlock()
	run.kill()
	m.kills++
	m.start(t)
}

func (m *mortalServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	m.mu.Lock()
	addr := m.running.addr
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
