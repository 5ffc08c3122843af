package batch

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// A client stream is submitted in chunks: large enough to amortize a commit, small enough to
// bound the memory. Up to chunksAhead chunks are in flight, twice the changes that the embedded store
// takes into one transaction: one half is received while the other is committed.
const (
	chunkItems  = 500
	chunkBytes  = 384 << 10
	chunksAhead = 8
)

// Pipeline applies the items of one client stream, in the order received.
type Pipeline struct {
	Store user.Store
	Feed  *feed.Feed
	Limit int // of items; beyond it the stream fails with TOO_MANY_ITEMS
	// OnResult is called with the result of each item; index counts from 0.
	OnResult func(index int, result *user.Result)

	current   *Chunk
	inFlight  []*Chunk
	received  int
	completed int
	position  int64
}

// Receive applies the items of the stream and returns when the client has closed it and all items
// are complete. The position is one that the results reflect. If it fails, items of submitted chunks
// stay applied.
func Receive[T any, M interface {
	*T
	proto.Message
}](
	ctx context.Context, p *Pipeline, stream *connect.ClientStream[T], change func(M) (user.Change, error),
) (position int64, err error) {
	p.current = new(Chunk)
	p.position = p.Feed.Head().Position
	for stream.Receive() {
		if p.received == p.Limit {
			return 0, p.abort(ctx, user.NewTooManyError(user.TooManyItems, "items in one stream", p.Limit))
		}
		if p.Feed.IsDraining() {
			return 0, p.abortForDrain(ctx)
		}
		item := M(stream.Msg())
		step, err := change(item)
		p.current.Add(step, err)
		p.current.bytes += proto.Size(item)
		p.received++
		if len(p.current.errs) >= chunkItems || p.current.bytes >= chunkBytes {
			if err := p.submit(ctx); err != nil {
				return 0, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		if p.Feed.IsDraining() { // the shutdown ended the read
			return 0, p.abortForDrain(ctx)
		}
		return 0, fmt.Errorf("receive item %d: %w", p.received, err)
	}
	if err := p.submit(ctx); err != nil {
		return 0, err
	}
	if err := p.completeAll(ctx); err != nil {
		return 0, err
	}
	return p.position, nil
}

// submit submits the current chunk. It waits for the oldest one if chunksAhead are in flight.
func (p *Pipeline) submit(ctx context.Context) error {
	p.current.submit(ctx, p.Store, false, 1) // the response names users by ID alone
	p.inFlight = append(p.inFlight, p.current)
	p.current = new(Chunk)
	if len(p.inFlight) < chunksAhead {
		return nil
	}
	return p.completeOldest(ctx)
}

func (p *Pipeline) completeOldest(ctx context.Context) error {
	results, err := p.inFlight[0].results(ctx)
	if err != nil {
		return fmt.Errorf("apply items from %d on: %w", p.completed, err)
	}
	p.inFlight = p.inFlight[1:]
	p.position = newest(p.position, results)
	for i := range results {
		p.OnResult(p.completed, &results[i])
		p.completed++
	}
	return nil
}

func (p *Pipeline) completeAll(ctx context.Context) error {
	for len(p.inFlight) > 0 {
		if err := p.completeOldest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// abort completes the chunks in flight, which the end of the call would cancel, and returns
// reason.
func (p *Pipeline) abort(ctx context.Context, reason error) error {
	if err := p.completeAll(ctx); err != nil {
		return err
	}
	return reason
}

// abortForDrain ends the stream at shutdown.
func (p *Pipeline) abortForDrain(ctx context.Context) error {
	if err := p.completeAll(ctx); err != nil {
		return err
	}
	head := p.Feed.Head()
	return user.NewDrainingError(head.Epoch, p.position)
}
