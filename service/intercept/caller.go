package intercept

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/user"
)

// Caller is an interceptor that stores the caller key in the context, see [CallerKey]. The
// store uses it for fair scheduling.
type Caller struct {
	serverOnly

	// Peer returns the key of a remote address with port. Required.
	Peer func(addr string) string
}

// WrapUnary stores the caller key of a unary call.
func (c Caller) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return next(c.with(ctx, req.Peer().Addr), req)
	}
}

// WrapStreamingHandler stores the caller key of a stream.
func (c Caller) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(c.with(ctx, conn.Peer().Addr), conn)
	}
}

func (c Caller) with(ctx context.Context, addr string) context.Context {
	return user.WithCaller(ctx, CallerKey(ctx, addr, c.Peer))
}
