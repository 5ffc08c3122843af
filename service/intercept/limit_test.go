package intercept_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// limitConn is the server side of a stream with a number of items.
type limitConn struct {
	connect.StreamingHandlerConn

	kind  connect.StreamType
	items int
}

func (c *limitConn) Spec() connect.Spec { return connect.Spec{StreamType: c.kind} }

func (c *limitConn) Receive(message any) error {
	if c.items == 0 {
		return io.EOF
	}
	c.items--
	if m, ok := message.(interface{ SetWireSize(bytes int) }); ok {
		m.SetWireSize(100) // as the codec does
	}
	return nil
}

func TestStreamLimitPerCaller(t *testing.T) {
	t.Parallel()
	limits := intercept.NewStreamLimits(intercept.StreamLimitOptions{PerCaller: 2})
	ada := user.WithCaller(t.Context(), "ada")
	// open opens nested streams and returns the error of the last one.
	var open func(ctx context.Context, more int) error
	open = func(ctx context.Context, more int) error {
		next := func(context.Context, connect.StreamingHandlerConn) error {
			if more == 1 {
				return nil
			}
			return open(ctx, more-1)
		}
		return limits.WrapStreamingHandler(next)(ctx, &limitConn{kind: connect.StreamTypeServer})
	}
	for range 3 { // finished streams are not counted
		if err := open(ada, 2); err != nil {
			t.Errorf("within the limit: error = %v", err)
		}
		err := open(ada, 3)
		if e, ok := user.AsError(err); !ok || e.Reason != user.TooManyStreams || e.RetryAfter == 0 {
			t.Errorf("beyond the limit: error = %v", err)
		}
	}
	bob, eve := user.WithCaller(t.Context(), "bob"), user.WithCaller(t.Context(), "eve")
	within := limits.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error {
		return errors.Join(
			open(bob, 1), // the second of the caller
			open(eve, 2),
			open(ada, 2),
		)
	})
	if err := within(bob, &limitConn{}); err != nil {
		t.Errorf("limits of other callers: error = %v", err)
	}
}

func TestByteLimitOfClientStream(t *testing.T) {
	t.Parallel()
	limits := intercept.NewStreamLimits(intercept.StreamLimitOptions{Bytes: 1000})
	for _, c := range []struct {
		kind     connect.StreamType
		items    int
		received int
		reason   user.Reason
	}{
		{connect.StreamTypeClient, 10, 10, ""},
		{connect.StreamTypeClient, 11, 10, user.TooManyItems},
		{connect.StreamTypeBidi, 5000, 5000, ""}, // no limit for bidi streams
	} {
		received := 0
		err := limits.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			for {
				if err := conn.Receive(new(userv1.BatchCreateUsersRequest)); err != nil {
					return err
				}
				received++
			}
		})(t.Context(), &limitConn{kind: c.kind, items: c.items})
		if received != c.received || c.reason == "" && !errors.Is(err, io.EOF) || c.reason != "" && !user.HasReason(err, c.reason) {
			t.Errorf("%+v: got %d, %v", c, received, err)
		}
	}
}

// A unary call has the earlier of the server's and the client's deadline; a stream has the
// client's.
func TestDeadlineIsClamped(t *testing.T) {
	t.Parallel()
	const limit = time.Minute
	deadline := intercept.NewDeadline(limit)
	for _, own := range []time.Duration{0, time.Second, time.Hour} {
		ctx := t.Context()
		if own > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, own)
			t.Cleanup(cancel)
		}
		left := func(ctx context.Context) time.Duration {
			end, ok := ctx.Deadline()
			if !ok {
				return 0
			}
			return time.Until(end).Round(10 * time.Second)
		}
		var unary, stream time.Duration
		_, err := deadline.WrapUnary(func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
			unary = left(ctx)
			return connect.NewResponse(&userv1.GetUserResponse{}), nil
		})(ctx, connect.NewRequest(&userv1.GetUserRequest{}))
		if err != nil {
			t.Error(err)
		}
		err = deadline.WrapStreamingHandler(func(ctx context.Context, _ connect.StreamingHandlerConn) error {
			stream = left(ctx)
			return nil
		})(ctx, &limitConn{})
		if err != nil {
			t.Error(err)
		}
		want := limit
		if own == time.Second {
			want = 0
		}
		if own = own.Round(10 * time.Second); unary != want || stream != own {
			t.Errorf("client timeout %v: unary %v, stream %v", own, unary, stream)
		}
	}
}
