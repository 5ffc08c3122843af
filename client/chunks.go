package client

import (
	"context"
	"iter"
	"slices"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

const (
	// chunkItems is the number of items that are sent on one stream. After an interruption they are sent again.
	chunkItems = 2000
	// chunksInFlight is the maximum number of chunks that are sent at the same time. While the results of one are
	// awaited, the server has others to apply.
	chunksInFlight = 3
)

// concern is something that an item of a batch reads or changes: a user, or a name.
type concern struct {
	userID          int64
	username, email string // normal forms
}

// allNames is the concern of items that may set any name free. Such chunks are sent one after the other.
var allNames = concern{userID: -1}

// createConcerns returns the names of a new user. An item with an invalid name fails.
func createConcerns(item *userv1.BatchCreateUsersRequest) []concern {
	if item.GetConflictPolicy() == userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE {
		return []concern{allNames}
	}
	var all []concern
	if key, ok := usernameKey(item.GetUser().GetUsername()); ok {
		all = append(all, concern{username: key})
	}
	if key, ok := emailKey(item.GetUser().GetEmail()); ok {
		all = append(all, concern{email: key})
	}
	return all
}

// updateConcerns returns the user of an update.
func updateConcerns(item *userv1.UpdateUserRequest) []concern {
	all := []concern{{userID: item.GetUserId()}}
	named := item.GetUser().GetUsername() != "" || item.GetUser().GetEmail() != ""
	if paths := item.GetUpdateMask().GetPaths(); len(paths) > 0 {
		named = slices.ContainsFunc(paths, func(path string) bool { return path == "username" || path == "email" || path == "*" })
	}
	if named {
		all = append(all, allNames)
	}
	return all
}

// batch sends items in chunks.
type batch[T any] struct {
	identify func(T) T
	concerns func(T) []concern
	send     func(context.Context, []T) ([]ItemResult, error) // see chunk.run
	report   func(ItemResult) error

	inFlight []*chunk[T] // the oldest first
	reported int64
	summary  BatchSummary
}

// chunk is a number of items that are sent together.
type chunk[T any] struct {
	items    []T
	concerns map[concern]struct{}

	done    chan struct{} // closed after results and err are set
	results []ItemResult
	err     error
}

func newChunk[T any]() *chunk[T] {
	return &chunk[T]{concerns: make(map[concern]struct{}), done: make(chan struct{})}
}

func (b *batch[T]) run(ctx context.Context, items iter.Seq[T]) (BatchSummary, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for _, c := range b.inFlight {
			<-c.done
		}
	}()
	next := newChunk[T]()
	for item := range items {
		next.add(b.identify(item), b.concerns)
		for len(b.inFlight) > 0 && b.inFlight[0].complete() {
			if err := b.await(); err != nil {
				return b.summary, err
			}
		}
		if len(next.items) == chunkItems {
			if err := b.start(ctx, next); err != nil {
				return b.summary, err
			}
			next = newChunk[T]()
		}
	}
	if len(next.items) > 0 {
		if err := b.start(ctx, next); err != nil {
			return b.summary, err
		}
	}
	for len(b.inFlight) > 0 {
		if err := b.await(); err != nil {
			return b.summary, err
		}
	}
	return b.summary, nil
}

// start sends a chunk when there is room, and when no chunk in flight has a concern of it.
func (b *batch[T]) start(ctx context.Context, c *chunk[T]) error {
	for len(b.inFlight) == chunksInFlight || slices.ContainsFunc(b.inFlight, c.dependsOn) {
		if err := b.await(); err != nil {
			return err
		}
	}
	b.inFlight = append(b.inFlight, c)
	go c.run(ctx, b.send)
	return nil
}

// await waits for the oldest chunk and reports its results.
func (b *batch[T]) await() error {
	c := b.inFlight[0]
	<-c.done
	b.inFlight = b.inFlight[1:]
	for _, r := range c.results {
		r.Index = b.reported
		b.reported++
		b.summary.count(r.Outcome)
		if b.report != nil {
			if err := b.report(r); err != nil {
				return err
			}
		}
	}
	return c.err
}

func (c *chunk[T]) add(item T, concerns func(T) []concern) {
	c.items = append(c.items, item)
	for _, each := range concerns(item) {
		c.concerns[each] = struct{}{}
	}
}

// dependsOn reports whether two chunks have a concern in common.
func (c *chunk[T]) dependsOn(other *chunk[T]) bool {
	small, large := c.concerns, other.concerns
	if len(small) > len(large) {
		small, large = large, small
	}
	for each := range small {
		if _, ok := large[each]; ok {
			return true
		}
	}
	return false
}

func (c *chunk[T]) complete() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// run sends the items. A response has the first 1,000 failures only: if there are more, the items behind them are sent
// again. Failures are not stored with the request id, so they fail again.
func (c *chunk[T]) run(ctx context.Context, send func(context.Context, []T) ([]ItemResult, error)) {
	defer close(c.done)
	for left := c.items; len(left) > 0; {
		results, err := send(ctx, left)
		if err != nil {
			c.err = err
			return
		}
		c.results = append(c.results, results...)
		left = left[len(results):]
	}
}
