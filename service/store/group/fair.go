package group

import "slices"

// Fair is a queue that serves callers round-robin. It is not safe for concurrent use. The zero value is ready to use.
type Fair[T comparable] struct {
	callers map[string]*turn[T]
	turns   []*turn[T] // callers with items, next one first
	items   int
}

type turn[T comparable] struct {
	caller string
	items  []T
}

// Push appends an item to its caller's queue.
func (q *Fair[T]) Push(caller string, item T) { q.Insert(caller, -1, item) }

// Insert inserts an item at index at of its caller's queue, or appends it if at is negative or
// the queue is shorter.
func (q *Fair[T]) Insert(caller string, at int, item T) {
	c := q.callers[caller]
	if c == nil {
		if q.callers == nil {
			q.callers = make(map[string]*turn[T])
		}
		c = &turn[T]{caller: caller}
		q.callers[caller] = c
		q.turns = append(q.turns, c)
	}
	if at < 0 || at > len(c.items) {
		at = len(c.items)
	}
	c.items = slices.Insert(c.items, at, item)
	q.items++
}

// Pop removes the first item of the next caller, which then moves to the end of the round.
func (q *Fair[T]) Pop() (item T, ok bool) {
	if len(q.turns) == 0 {
		return item, false
	}
	c := q.turns[0]
	q.turns[0] = nil
	q.turns = q.turns[1:]
	q.items--
	item = c.items[0]
	c.items = slices.Delete(c.items, 0, 1)
	if len(c.items) > 0 {
		q.turns = append(q.turns, c)
	} else {
		delete(q.callers, c.caller)
	}
	return item, true
}

// Callers returns the number of callers with items.
func (q *Fair[T]) Callers() int { return len(q.turns) }

// Len returns the number of items.
func (q *Fair[T]) Len() int { return q.items }

// OnlyOf reports whether all items are those of a caller.
func (q *Fair[T]) OnlyOf(caller string) bool {
	return len(q.turns) == 0 || len(q.turns) == 1 && q.turns[0].caller == caller
}

// Remove removes an item and reports whether it was queued.
func (q *Fair[T]) Remove(caller string, item T) bool {
	c := q.callers[caller]
	if c == nil {
		return false
	}
	i := slices.Index(c.items, item)
	if i < 0 {
		return false
	}
	q.items--
	if c.items = slices.Delete(c.items, i, i+1); len(c.items) == 0 {
		delete(q.callers, caller)
		q.turns = slices.DeleteFunc(q.turns, func(other *turn[T]) bool { return other == c })
	}
	return true
}
