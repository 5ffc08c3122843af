package server_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// lateStore has a read that continues after its call is canceled.
type lateStore struct {
	user.Store

	late             time.Duration
	reading          chan struct{}
	busy, closedBusy atomic.Bool
}

func (s *lateStore) Get(ctx context.Context, _ int64) (*user.User, error) {
	s.busy.Store(true)
	defer s.busy.Store(false)
	close(s.reading)
	<-ctx.Done()
	time.Sleep(s.late) // like an interrupted SQL statement
	return nil, ctx.Err()
}

func (s *lateStore) Close() error {
	s.closedBusy.Store(s.busy.Load())
	return s.Store.Close()
}

// A call that exceeds the shutdown timeout is canceled, its handler ends before the store closes, and
// the shutdown fails.
func TestShutdownCancelsLateCalls(t *testing.T) {
	for _, test := range []struct{ timeout, late time.Duration }{
		{0, 100 * time.Millisecond}, // the minimum of a second covers the handler
		{2 * time.Second, 100 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			late := &lateStore{late: test.late, reading: make(chan struct{})}
			s := servertest.Start(t, servertest.Memory(), servertest.Parallel(),
				servertest.Config(func(c *server.Config) { c.ShutdownTimeout = test.timeout }),
				servertest.Store(func(store user.Store) user.Store { late.Store = store; return late }))
			called := make(chan error, 1)
			go func() {
				_, err := s.Client(servertest.Protocol{}).GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1})
				called <- err
			}()
			<-late.reading
			began := time.Now()
			if err := s.Shutdown(); err == nil || !strings.Contains(err.Error(), "calls aborted after "+test.timeout.String()) {
				t.Errorf("timeout %v: Shutdown() = %v, want aborted calls", test.timeout, err)
			}
			if took, limit := time.Since(began), max(test.timeout, time.Second); took > limit {
				t.Errorf("timeout %v: shutdown took %v, want at most %v", test.timeout, took, limit)
			}
			if late.closedBusy.Load() {
				t.Errorf("timeout %v: the store was closed while a handler used it", test.timeout)
			}
			if err := <-called; connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("timeout %v: GetUser = %v, want UNAVAILABLE", test.timeout, err)
			}
		})
	}
}
