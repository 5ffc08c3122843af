package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/yourorg/userservice/service/user"
)

// maxViolations bounds the violations of one error over all items: they are sent in headers.
const maxViolations = 100

// chunk is a sequence of items submitted to the store as one batch. Invalid items keep their
// error, so that each item has one result.
type chunk struct {
	errs    []error // one per item; nil: the item is the next of changes
	changes []user.Change
	bytes   int
	pending *user.Pending
}

// add appends an item: a change, or the error of an invalid item.
func (c *chunk) add(change user.Change, err error, bytes int) {
	c.errs = append(c.errs, err)
	c.bytes += bytes
	if err == nil {
		c.changes = append(c.changes, change)
	}
}

// submit submits the changes without waiting for their results.
func (c *chunk) submit(ctx context.Context, store user.Store, atomic bool, maxUserBytes int) {
	if len(c.changes) > 0 {
		c.pending = store.Submit(ctx, user.Batch{Changes: c.changes, Atomic: atomic, MaxUserBytes: maxUserBytes})
	}
}

// results waits for the store and returns one result per item, or the error of the chunk.
func (c *chunk) results(ctx context.Context) ([]user.Result, error) {
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
func (c *chunk) invalid() error {
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

// atomicFailure returns the error of the item that failed an atomic batch, with the index of
// the item in message and field paths.
func atomicFailure(err error) error {
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
