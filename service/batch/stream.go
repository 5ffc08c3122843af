package batch

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
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

	// itemCopies is the memory of an item per byte of its message, until its result is known: decoded, and prepared for the
	// store. itemBytes is added for each item, errorBytes for an invalid one, of which only the error is kept.
	itemCopies = 3
	itemBytes  = 256
	errorBytes = 2 << 10
	// aheadBytes is the most that is reserved before a message is received, for small ones that follow each other.
	aheadBytes = 64 << 10
)

// Pipeline applies the items of one client stream, in the order received.
type Pipeline struct {
	Store user.Store
	Feed  *feed.Feed
	Limit int // of items; beyond it the stream fails with TOO_MANY_ITEMS
	// OnResult is called with the result of each item; index counts from 0.
	OnResult func(index int, result *user.Result)
	// Memory is the reservation of the call, with the items whose results are not known; nil: no limit.
	Memory *budget.Reservation

	current   *Chunk
	inFlight  []*Chunk
	received  int
	completed int
	failed    int // up to MaxFailures
	position  int64

	largest int64 // memory of a message and its item
	all     int64 // of the messages and their items
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
	defer p.Memory.ReleaseAhead()
	p.current = new(Chunk)
	p.position = p.Feed.Head().Position
	for {
		if err := p.reserveAhead(ctx); err != nil {
			return 0, p.abort(ctx, err)
		}
		grown := p.Memory.Grown()
		if !stream.Receive() {
			break
		}
		if p.received == p.Limit {
			return 0, p.abort(ctx, user.NewTooManyError(user.TooManyItems, "items in one stream", p.Limit))
		}
		if p.Feed.IsDraining() {
			return 0, p.abortForDrain(ctx)
		}
		item := M(stream.Msg())
		step, err := change(item)
		size := proto.Size(item)
		memory := int64(itemBytes + itemCopies*size)
		if err != nil {
			size, memory = errorBytes, errorBytes
		}
		if err := p.reserve(ctx, memory); err != nil {
			return 0, p.abort(ctx, err)
		}
		grown = p.Memory.Grown() - grown
		p.largest, p.all = max(p.largest, grown), p.all+grown
		p.current.Add(step, err)
		p.current.bytes += size
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

// reserveAhead reserves memory for the next message and its item, in steps that grow with the stream, because an idle one holds them.
func (p *Pipeline) reserveAhead(ctx context.Context) error {
	next := p.largest + p.largest/8 // names that end with a number become longer
	return p.await(ctx, next, max(next, min(p.all, aheadBytes)))
}

// reserve reserves the memory of an item, which is reserved ahead unless the item is larger than those before.
func (p *Pipeline) reserve(ctx context.Context, bytes int64) error {
	for p.Memory.Grow(budget.Write, bytes) != nil {
		if err := p.await(ctx, bytes, bytes); err != nil {
			return err
		}
	}
	p.current.reserved += bytes
	return nil
}

// await reserves memory ahead, see budget. Without memory it completes the items before, and then waits for other calls of the caller.
func (p *Pipeline) await(ctx context.Context, least, most int64) error {
	for !p.Memory.Ahead(least, most) {
		var err error
		switch {
		case len(p.inFlight) > 0:
			err = p.completeOldest(ctx)
		case len(p.current.errs) > 0:
			err = p.submit(ctx)
		default:
			return p.awaitOthers(ctx, least, most)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Pipeline) awaitOthers(ctx context.Context, least, most int64) error {
	slot := fair.FromContext(ctx)
	held := slot.Release()
	err := p.Memory.AwaitAhead(ctx, least, most)
	slot.Resume(held)
	if refused := new(budget.Error); errors.As(err, &refused) {
		return user.NewOverloadedError()
	}
	return err
}

// submit submits the current chunk. It completes the oldest ones that have no valid item, and one if chunksAhead are in flight.
func (p *Pipeline) submit(ctx context.Context) error {
	p.current.submit(ctx, p.Store, false, 1) // the response names users by ID alone
	p.inFlight = append(p.inFlight, p.current)
	p.current = new(Chunk)
	for len(p.inFlight) > 0 && (p.inFlight[0].pending == nil || len(p.inFlight) >= chunksAhead) {
		if err := p.completeOldest(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pipeline) completeOldest(ctx context.Context) error {
	results, err := p.inFlight[0].results(ctx)
	if err != nil {
		return fmt.Errorf("apply items from %d on: %w", p.completed, err)
	}
	p.Memory.Shrink(budget.Write, p.inFlight[0].reserved-p.keep(results))
	p.inFlight = p.inFlight[1:]
	p.position = newest(p.position, results)
	for i := range results {
		p.OnResult(p.completed, &results[i])
		p.completed++
	}
	return nil
}

// keep returns the memory of the failures among results that become part of the response.
func (p *Pipeline) keep(results []user.Result) (bytes int64) {
	for i := range results {
		if results[i].Err != nil && p.failed < MaxFailures {
			p.failed++
			bytes += errorBytes
		}
	}
	return bytes
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
