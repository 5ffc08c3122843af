package service

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/user"
)

// A client stream is submitted in chunks: large enough to amortize a commit, small enough to
// bound the memory. Items are received while up to chunksAhead chunks are committed.
const (
	chunkItems  = 500
	chunkBytes  = 1 << 20
	chunksAhead = 3
)

// pipeline submits the items of one client stream and returns their results in order.
type pipeline struct {
	service *Service
	// onResult is called with the result of each item; index counts from 0.
	onResult func(index int, result *user.Result)

	current   *chunk
	inFlight  []*chunk
	received  int
	completed int
	position  int64 // that the results reflect, at least the head at the start
}

// receiveAll applies the items of the stream, at most limit, and returns when the client has
// closed it and all items are complete. If it fails, items of submitted chunks stay applied.
func receiveAll[T any, M interface {
	*T
	proto.Message
}](
	ctx context.Context, p *pipeline, stream *connect.ClientStream[T], limit int,
	change func(M) (user.Change, error),
) error {
	p.current = new(chunk)
	p.position = p.service.feed.Head().Position
	for stream.Receive() {
		if p.received == limit {
			return p.abort(ctx, user.NewTooManyError(user.TooManyItems, "items in one stream", limit))
		}
		if p.service.feed.IsDraining() {
			return p.abortForDrain(ctx)
		}
		item := M(stream.Msg())
		step, err := change(item)
		p.current.add(step, err, proto.Size(item))
		p.received++
		if len(p.current.errs) >= chunkItems || p.current.bytes >= chunkBytes {
			if err := p.submit(ctx); err != nil {
				return err
			}
		}
	}
	if err := stream.Err(); err != nil {
		if p.service.feed.IsDraining() { // the shutdown ended the read
			return p.abortForDrain(ctx)
		}
		return fmt.Errorf("receive item %d: %w", p.received, err)
	}
	if err := p.submit(ctx); err != nil {
		return err
	}
	return p.completeAll(ctx)
}

// submit submits the current chunk. It waits for the oldest one if chunksAhead are in flight.
func (p *pipeline) submit(ctx context.Context) error {
	p.current.submit(ctx, p.service.store, false, 1) // the response names users by ID alone
	p.inFlight = append(p.inFlight, p.current)
	p.current = new(chunk)
	if len(p.inFlight) < chunksAhead {
		return nil
	}
	return p.completeOldest(ctx)
}

func (p *pipeline) completeOldest(ctx context.Context) error {
	results, err := p.inFlight[0].results(ctx)
	if err != nil {
		return fmt.Errorf("apply items from %d on: %w", p.completed, err)
	}
	p.inFlight = p.inFlight[1:]
	p.position = newest(p.position, results)
	for i := range results {
		p.onResult(p.completed, &results[i])
		p.completed++
	}
	return nil
}

func (p *pipeline) completeAll(ctx context.Context) error {
	for len(p.inFlight) > 0 {
		if err := p.completeOldest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// abort completes the chunks in flight, which the end of the call would cancel, and returns
// reason.
func (p *pipeline) abort(ctx context.Context, reason error) error {
	if err := p.completeAll(ctx); err != nil {
		return err
	}
	return reason
}

// abortForDrain ends the stream at shutdown.
func (p *pipeline) abortForDrain(ctx context.Context) error {
	if err := p.completeAll(ctx); err != nil {
		return err
	}
	head := p.service.feed.Head()
	return user.NewDrainingError(head.Epoch, p.position)
}
