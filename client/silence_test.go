package client_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// A stream whose connection is silent resumes after a ping without response. A stream that is silent on a working
// connection resumes when the progress messages stay out.
func TestSilentStreamIsReplaced(t *testing.T) {
	for _, test := range []struct {
		name    string
		stalled bool // only the stream is silent
		within  time.Duration
	}{
		{"ping", false, 12 * time.Second},
		{"no progress", true, 61 * time.Second}, // up to 15 s until a message is lost, then 45 s
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := servertest.Start(t, servertest.Memory())
				writer := newClient(t, s)
				u := createUser(t, writer, 1)
				f, stalls := &mutedNet{dial: s.Dial}, &stall{}
				c, err := client.New([]string{"http://userd.test"}, client.WithDialer(f.Dial), client.WithInterceptors(stalls))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				ctx, cancel := context.WithCancel(t.Context())
				rows, ended := make(chan int64), make(chan error, 1)
				go func() {
					ended <- c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: u.GetUserId()}, func(row *userv1.UserActivity) error {
						rows <- row.GetActivityId()
						return nil
					})
				}()
				<-rows
				synctest.Wait()
				start := time.Now()
				if test.stalled {
					stalls.stalled.Store(true)
				} else {
					f.mute(true)
				}
				record(t, writer, u.GetUserId())
				got := <-rows
				if after := time.Since(start); got != 2 || after > test.within {
					t.Errorf("row %d after %v, want 2 within %v", got, after, test.within)
				}
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("StreamUserActivities() = %v, want context.Canceled", err)
				}
				f.cut()
			})
		})
	}
}

// stall is an interceptor that stalls the first stream.
type stall struct {
	stalled atomic.Bool
	streams atomic.Int64
}

func (s *stall) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (s *stall) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (s *stall) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &stallConn{StreamingClientConn: next(ctx, spec), stall: s, done: ctx.Done(), first: s.streams.Add(1) == 1}
	}
}

type stallConn struct {
	connect.StreamingClientConn

	stall *stall
	done  <-chan struct{}
	first bool
}

func (c *stallConn) Receive(message any) error {
	err := c.StreamingClientConn.Receive(message)
	if c.first && c.stall.stalled.Load() {
		<-c.done
		return connect.NewError(connect.CodeCanceled, context.Canceled)
	}
	return err
}

// A slow connection delays a stream and does not end it, however long the replay takes.
func TestSlowConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servertest.Start(t, servertest.Memory())
		writer := newClient(t, s)
		u := createUser(t, writer, 1)
		change(t, writer, u.GetUserId(), 0, 1000)
		f := &slowNet{dial: s.Dial}
		c, err := client.New([]string{"http://userd.test"}, client.WithDialer(f.Dial))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		start, next := time.Now(), int64(1)
		err = c.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{ReplayOnly: true}, func(row *userv1.UserActivity) error {
			if row.GetActivityId() != next {
				t.Errorf("row %d, want %d", row.GetActivityId(), next)
			}
			next++
			return nil
		})
		if err != nil || next != 1002 {
			t.Errorf("StreamUserActivities() = %v after %d rows, want 1001", err, next-1)
		}
		// The health check may have a connection of its own.
		if conns := f.conns.Load(); time.Since(start) < time.Minute || conns > 2 {
			t.Errorf("the replay took %v on %d connections, want more than a minute and no further connection", time.Since(start), conns)
		}
	})
}
