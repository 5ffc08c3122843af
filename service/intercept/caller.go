package intercept

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/user"
)

// Caller puts the key of the caller into the context, as [CallerKey] gives it, so that the store
// serves callers in turn.
type Caller struct {
	serverOnly

	// Peer gives what stands for a peer at an address with its port. Required.
	Peer func(addr string) string
}

// WrapUnary puts in the caller of a unary call.
func (c Caller) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return next(c.with(ctx, req.Peer().Addr), req)
	}
}

// WrapStreamingHandler puts in the caller of a stream.
func (c Caller) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(c.with(ctx, conn.Peer().Addr), conn)
	}
}

func (c Caller) with(ctx context.Context, addr string) context.Context {
	return user.WithCaller(ctx, CallerKey(ctx, addr, c.Peer))
}
