package server

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// drained fails a client stream of reflection with SERVER_DRAINING if the shutdown ended it. The
// handler of grpcreflect only observes a failed read.
type drained struct{ feed *feed.Feed }

// WrapUnary returns next as it is.
func (d drained) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingClient returns next as it is.
func (d drained) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler replaces errors other than domain errors while the server drains.
func (d drained) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		if err == nil || conn.Spec().StreamType&connect.StreamTypeClient == 0 {
			return err
		}
		if _, known := user.AsError(err); known {
			return err
		}
		if !d.feed.IsDraining() {
			return err
		}
		head := d.feed.Head()
		return user.NewDrainingError(head.Epoch, head.Position)
	}
}
