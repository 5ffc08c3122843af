package client

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// RetryPolicy is the policy for failed calls, and for the reconnection of streams.
type RetryPolicy struct {
	Attempts   int           // attempts of a call, including the first one; 1 disables retries. Default: 3
	Backoff    time.Duration // mean delay before the second attempt; it doubles with each one. Default: 100 ms
	MaxBackoff time.Duration // maximum delay. Default: 5 s
}

// maxShift bounds the exponent of the backoff.
const maxShift = 16

// delay returns the delay after a number of failures: exponential, and multiplied by 0.8 to 1.2 as gRPC does.
func (p RetryPolicy) delay(failures int, random func() float64) time.Duration {
	mean := min(p.Backoff<<min(failures-1, maxShift), p.MaxBackoff)
	return time.Duration(float64(mean) * (0.8 + 0.4*random()))
}

// retryTokens is the retry budget, the retry throttling of gRPC (gRFC A6): a failure takes a token, a success returns a
// tenth of one, and calls are retried while more than half of the tokens are left.
type retryTokens struct{ tenths atomic.Int64 }

const (
	maxTenths     = 100
	failureTenths = 10
)

func newRetryTokens() *retryTokens {
	t := new(retryTokens)
	t.tenths.Store(maxTenths)
	return t
}

func (t *retryTokens) success() {
	for {
		now := t.tenths.Load()
		if now == maxTenths || t.tenths.CompareAndSwap(now, now+1) {
			return
		}
	}
}

// failure reports whether a retry is within the budget.
func (t *retryTokens) failure() bool {
	for {
		now := t.tenths.Load()
		next := max(0, now-failureTenths)
		if t.tenths.CompareAndSwap(now, next) {
			return next > maxTenths/2
		}
	}
}

// call makes a unary call that may be repeated: it has no side effects or a request id.
func call[T any](ctx context.Context, c *Client, method string, do func(context.Context, userv1connect.UserServiceClient) (T, error)) (T, error) {
	if _, ok := ctx.Deadline(); !ok && c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	var last *node
	for attempt := 1; ; attempt++ {
		use, err := c.balancer.pick(last)
		if err == nil {
			var result T
			result, err = do(ctx, use.node.rpc)
			use.done(ctx, err)
			if err == nil {
				c.budget.success()
				return result, nil
			}
			last = use.node
		}
		failure := c.newFailure(method, attempt, err)
		if !c.awaitRetry(ctx, failure) {
			var none T
			return none, failure
		}
	}
}

// awaitRetry waits until the call can be retried. It reports false if the failure is final.
func (c *Client) awaitRetry(ctx context.Context, failure *Error) bool {
	if ctx.Err() != nil || !temporary(failure) || !c.budget.failure() || failure.Attempts >= c.retry.Attempts {
		return false
	}
	if rejectedToken(failure) && (failure.Attempts > 1 || !c.auth.discard()) {
		return false
	}
	delay := max(failure.RetryAfter, c.retry.delay(failure.Attempts, c.random))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
		return false
	}
	c.metrics.retried(failure.Method)
	return wait(ctx, delay) == nil
}

// newFailure converts the error of an attempt. Close closes the connections, so its effect is ErrClosed.
func (c *Client) newFailure(method string, attempts int, err error) *Error {
	failure := newError(method, attempts, err)
	if c.ctx.Err() != nil && temporary(failure) {
		return newError(method, attempts, connect.NewError(connect.CodeCanceled, ErrClosed))
	}
	return failure
}

// temporary reports whether another attempt may succeed. The context has not ended.
func temporary(failure *Error) bool {
	if errors.Is(failure, ErrClosed) {
		return false
	}
	switch failure.Reason {
	case userv1.ErrorReason_ERROR_REASON_UNSPECIFIED:
		return failedNode(failure)
	case userv1.ErrorReason_RATE_LIMITED, userv1.ErrorReason_TOO_MANY_STREAMS:
		return true
	default:
		return failure.Code == connect.CodeUnavailable || rejectedToken(failure)
	}
}

// rejectedToken reports whether the call may succeed with a new token.
func rejectedToken(failure *Error) bool {
	return failure.Reason == userv1.ErrorReason_CREDENTIALS_EXPIRED || failure.Reason == userv1.ErrorReason_CREDENTIALS_INVALID
}

// failedNode reports whether a failure is one of the node or of the connection to it. The context has not ended.
func failedNode(failure *Error) bool {
	switch failure.Reason {
	case userv1.ErrorReason_SERVER_DRAINING, userv1.ErrorReason_STORE_UNAVAILABLE:
		return true
	case userv1.ErrorReason_ERROR_REASON_UNSPECIFIED:
	default:
		return false
	}
	switch failure.Code {
	case connect.CodeUnavailable:
		return true
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeInternal, connect.CodeDeadlineExceeded, connect.CodeInvalidArgument,
		connect.CodeDataLoss:
		// connect has these codes for connections that were reset, timed out, or closed within a message.
		return !connect.IsWireError(failure.cause) && !strings.HasPrefix(failure.Message, "marshal message")
	default:
		return false
	}
}

// wait waits for the delay, or returns the error of the context.
func wait(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
