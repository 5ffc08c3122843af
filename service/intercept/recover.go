package intercept

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect"
)

// Recover is an interceptor that converts a panic of a handler into an error, which Errors
// logs with its stack. It covers only the goroutine of the call.
type Recover struct{ serverOnly }

type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// WrapUnary recovers from panics of unary calls.
func (Recover) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		defer recovered(&err)
		return next(ctx, req)
	}
}

// WrapStreamingHandler recovers from panics of streams.
func (Recover) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		defer recovered(&err)
		return next(ctx, conn)
	}
}

func recovered(err *error) {
	switch value := recover(); value {
	case nil:
	case http.ErrAbortHandler: // aborts the response on purpose
		panic(value)
	default:
		*err = &panicError{value: value, stack: debug.Stack()}
	}
}
