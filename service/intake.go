package service

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/user"
)

// A client stream goes to the store in chunks: large enough to share the cost of a
// commit, small enough to bound the memory, and a few on the way so that items
// are received while others are committed.
const (
	chunkItems  = 500
	chunkBytes  = 1 << 20
	chunksAhead = 3
)

// intake carries the items of one client stream to the store and their results
// back, both in order.
type intake struct {
	service *Service
	// settle is told what became of each item; index counts from 0.
	settle func(index int, result *user.Result)

	filling  *chunk
	onTheWay []*chunk
	received int
	settled  int
	position int64 // that the results reflect, at least the head at the beginning
}

// receiveAll applies every item of the stream, and returns when the caller has
// closed it and all are settled. At most limit items are taken. Where it fails,
// items of chunks that were already handed in stay applied; of the others none is.
func receiveAll[T any, M interface {
	*T
	proto.Message
}](
	ctx context.Context, in *intake, stream *connect.ClientStream[T], limit int,
	change func(M) (user.Change, error),
) error {
	in.filling = new(chunk)
	in.position = in.service.feed.Head().Position
	for stream.Receive() {
		if in.received == limit {
			return in.giveUp(ctx, user.NewTooManyError(user.TooManyItems, "items in one stream", limit))
		}
		if in.service.feed.IsDraining() {
			return in.stopForDrain(ctx)
		}
		item := M(stream.Msg())
		step, err := change(item)
		in.filling.add(step, err, proto.Size(item))
		in.received++
		if len(in.filling.refusals) >= chunkItems || in.filling.bytes >= chunkBytes {
			if err := in.handIn(ctx); err != nil {
				return err
			}
		}
	}
	if err := stream.Err(); err != nil {
		if in.service.feed.IsDraining() { // why nothing more can be read
			return in.stopForDrain(ctx)
		}
		return fmt.Errorf("receive item %d: %w", in.received, err)
	}
	if err := in.handIn(ctx); err != nil {
		return err
	}
	return in.settleAll(ctx)
}

// handIn submits the chunk being filled, and waits for the oldest one on the way
// where there are enough of them.
func (in *intake) handIn(ctx context.Context) error {
	in.filling.submit(ctx, in.service.store, false)
	in.onTheWay = append(in.onTheWay, in.filling)
	in.filling = new(chunk)
	if len(in.onTheWay) < chunksAhead {
		return nil
	}
	return in.settleOldest(ctx)
}

func (in *intake) settleOldest(ctx context.Context) error {
	results, err := in.onTheWay[0].results(ctx)
	if err != nil {
		return fmt.Errorf("apply items from %d on: %w", in.settled, err)
	}
	in.onTheWay = in.onTheWay[1:]
	in.position = newest(in.position, results)
	for i := range results {
		in.settle(in.settled, &results[i])
		in.settled++
	}
	return nil
}

func (in *intake) settleAll(ctx context.Context) error {
	for len(in.onTheWay) > 0 {
		if err := in.settleOldest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// giveUp ends the stream with reason once what is on the way has been settled, for
// the call's end would cancel it.
func (in *intake) giveUp(ctx context.Context, reason error) error {
	if err := in.settleAll(ctx); err != nil {
		return err
	}
	return reason
}

// stopForDrain ends the stream because the server is about to stop.
func (in *intake) stopForDrain(ctx context.Context) error {
	if err := in.settleAll(ctx); err != nil {
		return err
	}
	head := in.service.feed.Head()
	return user.NewDrainingError(head.Epoch, in.position)
}
