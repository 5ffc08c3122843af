package intercept

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
)

// The context of a call behaves like context.WithTimeout, with and without a wait for its end.
func TestCallContext(t *testing.T) {
	t.Parallel()
	ended := errors.New("ended")
	for name, test := range map[string]struct {
		parent time.Duration // timeout of the parent, 0: none
		do     func(ctx context.Context, cancelParent context.CancelCauseFunc)
		err    error
		cause  error
	}{
		"in progress":                       {0, func(context.Context, context.CancelCauseFunc) {}, nil, nil},
		"over, without a wait":              {0, func(context.Context, context.CancelCauseFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded, context.DeadlineExceeded},
		"over, after a wait":                {0, func(ctx context.Context, _ context.CancelCauseFunc) { <-ctx.Done() }, context.DeadlineExceeded, context.DeadlineExceeded},
		"the parent is over":                {time.Second, func(ctx context.Context, _ context.CancelCauseFunc) { <-ctx.Done() }, context.DeadlineExceeded, context.DeadlineExceeded},
		"the parent is canceled":            {0, func(_ context.Context, cancel context.CancelCauseFunc) { cancel(ended) }, context.Canceled, ended},
		"the parent is canceled, with wait": {0, func(ctx context.Context, cancel context.CancelCauseFunc) { done := ctx.Done(); cancel(ended); <-done }, context.Canceled, ended},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				type key struct{}
				parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
				if test.parent > 0 {
					var end context.CancelFunc
					parent, end = context.WithTimeout(parent, test.parent)
					defer end()
				}
				var ctx context.Context
				_, _ = NewDeadline(time.Minute).WrapUnary(func(c context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
					ctx = c //nolint:fatcontext // the test inspects it after the call
					wantDeadline := time.Now().Add(time.Minute)
					if test.parent > 0 {
						wantDeadline = time.Now().Add(test.parent)
					}
					if got, ok := ctx.Deadline(); !ok || !got.Equal(wantDeadline) {
						t.Errorf("Deadline() = %v, %t, want %v", got, ok, wantDeadline)
					}
					test.do(ctx, cancel)
					if got := ctx.Err(); !errors.Is(got, test.err) {
						t.Errorf("Err() = %v, want %v", got, test.err)
					}
					if got := context.Cause(ctx); !errors.Is(got, test.cause) {
						t.Errorf("Cause() = %v, want %v", got, test.cause)
					}
					inner, endInner := context.WithCancel(ctx)
					defer endInner()
					if got := context.Cause(inner); !errors.Is(got, test.cause) {
						t.Errorf("Cause() of a derived context = %v, want %v", got, test.cause)
					}
					if got := ctx.Value(key{}); got != "value" {
						t.Errorf("Value() = %v, want that of the parent", got)
					}
					return nil, nil
				})(parent, connect.NewRequest(&struct{}{}))
				if ctx.Err() == nil {
					t.Error("Err() = nil after the call, want an error")
				}
				<-ctx.Done()
				cancel(nil)
			})
		})
	}
}
