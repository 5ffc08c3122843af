package intercept

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/user"
)

// Drained is an interceptor that fails a client stream with SERVER_DRAINING if the shutdown ended it. The
// handlers of this service do so themselves; that of grpcreflect only observes a failed read.
type Drained struct {
	serverOnly

	Feed interface {
		Head() user.Head
		IsDraining() bool
	}
}

// WrapUnary returns next as it is.
func (d Drained) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler replaces errors other than domain errors while the server drains.
func (d Drained) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		if err == nil || conn.Spec().StreamType&connect.StreamTypeClient == 0 {
			return err
		}
		if _, known := user.AsError(err); known {
			return err
		}
		if !d.Feed.IsDraining() {
			return err
		}
		head := d.Feed.Head()
		return user.NewDrainingError(head.Epoch, head.Position)
	}
}
