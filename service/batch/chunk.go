// Package batch applies the items of batches and of client streams: each item has its own result, an
// invalid one its error. It converts the failures of items for a response that fits a message.
package batch

import (
	"context"
	"errors"
	"fmt"

	"github.com/yourorg/userservice/service/user"
)

// maxViolations bounds the violations of one error over all items: they are sent in headers.
const maxViolations = 100

// Chunk is a sequence of items submitted to the store as one batch.
type Chunk struct {
	errs    []error // one per item; nil: the item is the next of changes
	changes []user.Change
	bytes   int
	// reserved is the memory reserved for the items.
	reserved int64
	pending  *user.Pending
}

// Add appends an item: a change, or the error of an invalid item.
func (c *Chunk) Add(change user.Change, err error) {
	c.errs = append(c.errs, err)
	if err == nil {
		c.changes = append(c.changes, change)
	}
}

// Apply applies the changes and returns one result per item, and the newest position of a result, 0
// if there is none. With atomic it fails unless all items are valid and all changes succeed, see
// NameItem. maxUserBytes is as in user.Batch.
func (c *Chunk) Apply(ctx context.Context, store user.Store, atomic bool, maxUserBytes int) ([]user.Result, int64, error) {
	if atomic {
		if err := c.invalid(); err != nil {
			return nil, 0, err
		}
	}
	c.submit(ctx, store, atomic, maxUserBytes)
	results, err := c.results(ctx)
	if err != nil {
		return nil, 0, err
	}
	return results, newest(0, results), nil
}

// submit submits the changes without waiting for their results.
func (c *Chunk) submit(ctx context.Context, store user.Store, atomic bool, maxUserBytes int) {
	if len(c.changes) > 0 {
		c.pending = store.Submit(ctx, user.Batch{Changes: c.changes, Atomic: atomic, MaxUserBytes: maxUserBytes})
	}
}

// results waits for the store and returns one result per item, or the error of the chunk.
func (c *Chunk) results(ctx context.Context) ([]user.Result, error) {
	var applied []user.Result
	if c.pending != nil {
		var err error
		if applied, err = c.pending.Wait(ctx); err != nil {
			return nil, err
		}
	}
	out := make([]user.Result, len(c.errs))
	for i, err := range c.errs {
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i], applied = applied[0], applied[1:]
	}
	return out, nil
}

// invalid returns one error for all invalid items of an atomic batch, nil if there is none.
func (c *Chunk) invalid() error {
	var violations []user.Violation
	for i, err := range c.errs {
		if err == nil {
			continue
		}
		e, ok := user.AsError(err)
		if !ok {
			return fmt.Errorf("item %d: %w", i, err)
		}
		violations = append(violations, e.WithFieldPrefix(itemPath(i)).Violations...)
	}
	if violations == nil {
		return nil
	}
	e := user.NewInvalidError(violations...)
	if n := len(violations); n > maxViolations {
		e.Violations = violations[:maxViolations]
		e.Message = fmt.Sprintf("%s (the first %d of %d violations)", e.Message, maxViolations, n)
	}
	return e
}

// NameItem returns the error of an atomic batch with the index of the failed item in message and
// field paths. It returns any error but a *user.ItemError unchanged.
func NameItem(err error) error {
	var item *user.ItemError
	if !errors.As(err, &item) {
		return err
	}
	e, ok := user.AsError(item.Err)
	if !ok {
		return fmt.Errorf("item %d: %w", item.Index, item.Err)
	}
	named := e.WithFieldPrefix(itemPath(item.Index))
	named.Message = fmt.Sprintf("item %d: %s; no item was applied", item.Index, e.Message)
	return named
}

func itemPath(index int) string { return fmt.Sprintf("requests[%d]", index) }

// newest returns the maximum of position and the positions of the results.
func newest(position int64, results []user.Result) int64 {
	for i := range results {
		position = max(position, results[i].Position)
	}
	return position
}
