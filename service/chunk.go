package service

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/user"
)

// maxViolations bounds how many violations one error lists over all its items: a
// caller reads no more, and they travel in headers.
const maxViolations = 100

// chunk is a run of items that go to the store together, in order. An item that
// was refused here goes along as its failure, so that each has one result.
type chunk struct {
	refusals []error // one for each item; nil: it is the next of changes
	changes  []user.Change
	bytes    int
	pending  *user.Pending
}

// add takes an item in: its change, or why there is none.
func (c *chunk) add(change user.Change, refusal error, bytes int) {
	c.refusals = append(c.refusals, refusal)
	c.bytes += bytes
	if refusal == nil {
		c.changes = append(c.changes, change)
	}
}

// submit hands the changes to the store and returns without waiting for them.
func (c *chunk) submit(ctx context.Context, store user.Store, atomic bool) {
	if len(c.changes) > 0 {
		c.pending = store.Submit(ctx, user.Batch{Changes: c.changes, Atomic: atomic})
	}
}

// results waits for the store and returns one result an item, or why the chunk
// failed as a whole.
func (c *chunk) results(ctx context.Context) ([]user.Result, error) {
	var applied []user.Result
	if c.pending != nil {
		var err error
		if applied, err = c.pending.Wait(ctx); err != nil {
			return nil, err
		}
	}
	out := make([]user.Result, len(c.refusals))
	for i, refusal := range c.refusals {
		if refusal != nil {
			out[i].Err = refusal
			continue
		}
		out[i], applied = applied[0], applied[1:]
	}
	return out, nil
}

// refusal is the one error for all items that were refused, nil if none was; it is
// for batches of which all items or none are applied.
func (c *chunk) refusal() error {
	var violations []user.Violation
	for i, err := range c.refusals {
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

// atomicFailure is the error of the item for which an atomic batch was not applied,
// with paths from the request on.
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

// checkItem validates one item by the rules of the proto; an item that is not there
// breaks them all.
func (s *Service) checkItem(item proto.Message) error {
	if !item.ProtoReflect().IsValid() {
		return user.NewFieldErrorf("", "must be set")
	}
	return s.opts.Validate(item)
}

// newest returns the later of a position and those that the results reflect.
func newest(position int64, results []user.Result) int64 {
	for i := range results {
		position = max(position, results[i].Position)
	}
	return position
}
