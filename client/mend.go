package client

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// attempt is one stream of a method that reconnects.
type attempt struct {
	rpc      userv1connect.UserServiceClient
	use      lease
	watchdog *time.Timer // cancels the stream if nothing is received for idle
	idle     time.Duration
	received bool
}

// receive wraps the receipt of a message: the stream may be idle for a limited time meanwhile.
func (a *attempt) receive(ctx context.Context, next func() bool) bool {
	a.watchdog.Reset(a.idle)
	ok := next()
	a.watchdog.Stop()
	if ok && !a.received {
		a.responded(ctx)
	}
	return ok
}

// responded records that the node has responded.
func (a *attempt) responded(ctx context.Context) {
	a.received = true
	a.use.result(ctx, nil)
}

// errEarlyEnd is the error of a stream that the server ended with OK although it goes on.
var errEarlyEnd = connect.NewError(connect.CodeUnavailable, errors.New("stream ended early"))

// mend runs a stream until it returns nil or fails for good, and again on another node whenever the node or the
// connection fails. The stream must continue after the last message that it passed to the caller.
func (c *Client) mend(ctx context.Context, method string, stream func(context.Context, *attempt) error) error {
	var last *node
	rejected := false // the last attempt failed because of its token
	for failures := 1; ; failures++ {
		use, err := c.balancer.pick(last)
		if err == nil {
			var received bool
			if received, err = c.attempt(ctx, use, stream); err == nil {
				return nil
			}
			last = use.node
			if received {
				failures, rejected = 1, false
			}
		}
		if ctx.Err() != nil {
			return contextError(ctx, method)
		}
		failure := c.newFailure(method, failures, err)
		if !temporary(failure) {
			return failure
		}
		if rejectedToken(failure) {
			if rejected || !c.auth.discard() {
				return failure
			}
			rejected = true
		}
		c.metrics.retried(method)
		delay := max(failure.RetryAfter, c.retry.delay(failures, c.random))
		c.logger.InfoContext(ctx, "stream interrupted", "method", method, "error", failure, "retry_after", delay)
		if wait(ctx, delay) != nil {
			return contextError(ctx, method)
		}
	}
}

// contextError returns the error of a context that has ended.
func contextError(ctx context.Context, method string) *Error {
	code := connect.CodeCanceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return newError(method, 1, connect.NewError(code, context.Cause(ctx)))
}

// attempt runs a stream on a node, and reports whether it received a message.
func (c *Client) attempt(ctx context.Context, use lease, stream func(context.Context, *attempt) error) (received bool, err error) {
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &attempt{rpc: use.node.rpc, use: use, idle: c.idleTimeout}
	a.watchdog = time.AfterFunc(a.idle, cancel)
	defer a.watchdog.Stop() // it runs while a message is awaited
	err = stream(streaming, a)
	a.use.done(ctx, err)
	return a.received, err
}

// position is a position in the log of an epoch.
type position struct {
	epoch  string
	number int64
}

// headerPosition returns the position in the header of a response, which the stream reflects at least.
func headerPosition(header http.Header) (position, bool) {
	epoch, text, ok := strings.Cut(header.Get("Userd-Position"), ":")
	if !ok {
		return position{}, false
	}
	number, err := strconv.ParseInt(text, 10, 64)
	return position{epoch: epoch, number: number}, err == nil
}
