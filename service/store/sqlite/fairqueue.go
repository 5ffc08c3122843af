package sqlite

import "slices"

// fairQueue is a queue that serves callers round-robin. It is not safe for concurrent use.
type fairQueue[T comparable] struct {
	callers map[string]*callerQueue[T]
	turns   []*callerQueue[T] // callers with items, next one first
}

type callerQueue[T comparable] struct {
	caller string
	items  []T
}

// push appends an item to its caller's queue.
func (q *fairQueue[T]) push(caller string, item T) { q.insert(caller, -1, item) }

// insert inserts an item at index at of its caller's queue, or appends it if at is negative or
// the queue is shorter.
func (q *fairQueue[T]) insert(caller string, at int, item T) {
	c := q.callers[caller]
	if c == nil {
		if q.callers == nil {
			q.callers = make(map[string]*callerQueue[T])
		}
		c = &callerQueue[T]{caller: caller}
		q.callers[caller] = c
		q.turns = append(q.turns, c)
	}
	if at < 0 || at > len(c.items) {
		at = len(c.items)
	}
	c.items = slices.Insert(c.items, at, item)
}

// pop removes the first item of the next caller, which then moves to the end of the round.
func (q *fairQueue[T]) pop() (item T, ok bool) {
	if len(q.turns) == 0 {
		return item, false
	}
	c := q.turns[0]
	q.turns[0] = nil
	q.turns = q.turns[1:]
	item = c.items[0]
	c.items = slices.Delete(c.items, 0, 1)
	if len(c.items) > 0 {
		q.turns = append(q.turns, c)
	} else {
		delete(q.callers, c.caller)
	}
	return item, true
}

// remove removes an item and reports whether it was queued.
func (q *fairQueue[T]) remove(caller string, item T) bool {
	c := q.callers[caller]
	if c == nil {
		return false
	}
	i := slices.Index(c.items, item)
	if i < 0 {
		return false
	}
	if c.items = slices.Delete(c.items, i, i+1); len(c.items) == 0 {
		delete(q.callers, caller)
		q.turns = slices.DeleteFunc(q.turns, func(other *callerQueue[T]) bool { return other == c })
	}
	return true
}
