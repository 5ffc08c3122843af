package main_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// Calls are retried over connections that break at random points, while the server is killed
// and restarted. Each request id must take effect exactly once.
func TestRequestIDsTakeEffectOnce(t *testing.T) {
	const callers, calls, kills = 4, 60, 3
	ctx := within(t, hangTimeout)
	run := program{dir: t.TempDir()}
	cutter := newCutter(t)
	cutter.aim(run.start(t))
	id := createOne(ctx, t, cutter.process())

	var mu sync.Mutex
	var given []string
	progress := make(chan struct{}, callers*calls)
	var all errgroup.Group
	for range callers {
		all.Go(func() error {
			for i := range calls {
				requestID := uuid.NewString()
				if err := untilSuccess(ctx, cutter, id, requestID, i%2 == 0); err != nil {
					return err
				}
				mu.Lock()
				given = append(given, requestID)
				mu.Unlock()
				progress <- struct{}{}
			}
			return nil
		})
	}
	for range kills {
		for range callers * calls / (kills + 1) {
			<-progress
		}
		cutter.process().kill()
		cutter.aim(run.start(t))
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	effects := countEffects(ctx, t, cutter.process())
	for _, requestID := range given {
		if effects[requestID] != 1 {
			t.Errorf("request id %s took effect %d times, want 1", requestID, effects[requestID])
		}
	}
	if len(effects) != len(given) {
		t.Errorf("log has %d request ids, want %d", len(effects), len(given))
	}
	t.Logf("%d request ids, %d connections cut, %d kills", len(given), cutter.cuts(), kills)
}

func createOne(ctx context.Context, t testing.TB, p *process) int64 {
	t.Helper()
	resp, err := p.client(t, 1<<20).CreateUser(ctx, &userv1.CreateUserRequest{
		Username: "repeated", Email: "repeated@example.org",
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetUser().GetUserId()
}

// untilSuccess retries a call, each time over a new connection.
func untilSuccess(ctx context.Context, c *cutter, id int64, requestID string, create bool) error {
	for {
		err := c.try(func(client userv1connect.UserServiceClient) error {
			if create {
				_, err := client.CreateUser(ctx, &userv1.CreateUserRequest{
					Username: "r-" + requestID, Email: requestID + "@example.org", RequestId: requestID,
				})
				return err
			}
			_, err := client.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{
				UserId: id, Action: "test.repeated", RequestId: requestID,
			})
			return err
		})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !broken(err) {
			return fmt.Errorf("request id %s: %w", requestID, err)
		}
	}
}

func countEffects(ctx context.Context, t testing.TB, p *process) map[string]int {
	t.Helper()
	stream, err := p.client(t, 1<<20).StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	effects := make(map[string]int)
	for stream.Receive() {
		if requestID := stream.Msg().GetDetails()["request_id"]; requestID != "" {
			effects[requestID]++
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return effects
}

// cutter is a TCP proxy that closes most connections after a random number of bytes.
type cutter struct {
	t        testing.TB
	listener net.Listener

	mu     sync.Mutex
	target *process
	cut    int
	conns  sync.WaitGroup
}

func newCutter(t testing.TB) *cutter {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{t: t, listener: listener}
	c.conns.Go(c.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		c.conns.Wait()
	})
	return c
}

func (c *cutter) aim(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = p
}

func (c *cutter) process() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.target
}

func (c *cutter) cuts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// try makes a call over a new connection.
func (c *cutter) try(call func(userv1connect.UserServiceClient) error) error {
	through := &process{addr: c.listener.Addr().String()}
	client, closeIdle := through.newClient(1 << 20)
	defer closeIdle()
	return call(client)
}

func (c *cutter) serve() {
	for {
		caller, err := c.listener.Accept()
		if err != nil {
			return
		}
		service, err := new(net.Dialer).DialContext(context.Background(), "tcp", c.process().addr)
		if err != nil {
			_ = caller.Close() // the server is down
			continue
		}
		limit := func() int64 {
			if rand.IntN(4) == 0 {
				return 1 << 30
			}
			return rand.Int64N(900)
		}
		c.conns.Go(func() { c.pass(service, caller, limit()) })
		c.conns.Go(func() { c.pass(caller, service, limit()) })
	}
}

// pass copies at most limit bytes, then closes both connections.
func (c *cutter) pass(to, from net.Conn, limit int64) {
	n, _ := io.CopyN(to, from, limit)
	if n == limit {
		c.mu.Lock()
		c.cut++
		c.mu.Unlock()
	}
	_, _ = to.Close(), from.Close() // may be closed already
}
