package sqlite

import (
	"sync"

	"github.com/yourorg/userservice/service/store/group"
)

// readTask is a read to be run by a reader.
type readTask struct {
	caller string
	run    func(*reader) (last bool)
	done   chan struct{} // capacity 1
}

// readQueue distributes tasks to readers, round-robin by caller. The zero value is ready to use.
type readQueue struct {
	mu      sync.Mutex
	waiting group.Fair[*readTask]
	idle    []chan *readTask // of idle readers, most recently idle last
	closed  bool
}

// submit enqueues a task. It returns false if the queue is closed.
func (q *readQueue) submit(t *readTask) bool { return q.insert(t, -1) }

// insert enqueues a task at index at of its caller's tasks, or last if at is negative.
func (q *readQueue) insert(t *readTask, at int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if last := len(q.idle) - 1; last >= 0 { // then no task is waiting
		q.idle[last] <- t // does not block
		q.idle = q.idle[:last]
		return true
	}
	q.waiting.Insert(t.caller, at, t)
	return true
}

// next waits for the next task for a reader. It returns nil when the queue is closed. own is the
// reader's channel, with capacity 1.
func (q *readQueue) next(own chan *readTask) *readTask {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	if t, ok := q.waiting.Pop(); ok {
		q.mu.Unlock()
		return t
	}
	q.idle = append(q.idle, own)
	q.mu.Unlock()
	return <-own
}

// cancel removes a waiting task.
func (q *readQueue) cancel(t *readTask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.Remove(t.caller, t)
}

func (q *readQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, own := range q.idle {
		close(own)
	}
	q.idle = nil
}
