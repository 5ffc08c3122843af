package intercept_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// stillFeed is a log that does not grow.
type stillFeed struct{}

func (stillFeed) Head() user.Head { return user.Head{Epoch: "e", Position: 3} }

func (stillFeed) WaitFor(ctx context.Context, _ int64) error {
	<-ctx.Done()
	return ctx.Err()
}

func first(context.Context) (int64, error) { return 1, nil }

func TestWaitForPositionTimesOut(t *testing.T) {
	for name, test := range map[string]struct {
		deadline time.Duration // 0: none
		want     time.Duration
	}{
		"after five seconds": {0, 5 * time.Second},
		"at the deadline":    {2 * time.Second, 2 * time.Second},
		"not at a later one": {time.Hour, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				start := time.Now()
				err := wrapped(ctx, "e:4")
				if !user.HasReason(err, user.PositionNotReached) {
					t.Errorf("error = %v", err)
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("WrapUnary took %v", took)
				}
			})
		})
	}
}

func TestReachedPosition(t *testing.T) {
	if err := wrapped(t.Context(), "e:3"); err != nil {
		t.Error(err)
	}
}

// wrapped makes a call with a minimum position.
func wrapped(ctx context.Context, want string) error {
	request := connect.NewRequest(&userv1.ListUsersRequest{})
	request.Header().Set(user.MinPositionHeader, want)
	position := intercept.NewPosition(stillFeed{}, first)
	_, err := position.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return connect.NewResponse(&userv1.ListUsersResponse{}), nil
	})(ctx, request)
	return err
}

// conn is a stream that receives one message.
type conn struct {
	connect.StreamingHandlerConn

	kind     connect.StreamType
	request  http.Header
	response http.Header
	receive  func(any) error
}

func newConn(kind connect.StreamType, receive func(any) error) *conn {
	return &conn{kind: kind, request: http.Header{}, response: http.Header{}, receive: receive}
}

func (c *conn) Spec() connect.Spec          { return connect.Spec{StreamType: c.kind, Procedure: "/p"} }
func (c *conn) Peer() connect.Peer          { return connect.Peer{} }
func (c *conn) RequestHeader() http.Header  { return c.request }
func (c *conn) ResponseHeader() http.Header { return c.response }
func (c *conn) Receive(message any) error   { return c.receive(message) }

func TestStreamsHavePositions(t *testing.T) {
	c := newConn(connect.StreamTypeBidi, nil)
	position := intercept.NewPosition(stillFeed{}, first)
	run := position.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { return nil })
	if err := run(t.Context(), c); err != nil || c.response.Get(user.PositionHeader) != "e:3" {
		t.Errorf("header %v, error %v", c.response, err)
	}
	c.request.Set(user.MinPositionHeader, "other:1")
	if err := run(t.Context(), c); !user.HasReason(err, user.PositionOutOfRange) {
		t.Errorf("error = %v", err)
	}
}
