package sqlite

import "sync"

// readTask is a read on its way to a reader and back.
type readTask struct {
	caller string
	run    func(*reader) (last bool)
	done   chan struct{} // has room for one
}

// readQueue hands the tasks of callers to readers, in turn. The zero value is ready for use.
type readQueue struct {
	mu      sync.Mutex
	waiting fairQueue[*readTask]
	idle    []chan *readTask // of readers without a task, the last one to become idle last
	closed  bool
}

// submit hands in a task, and reports whether the queue takes any.
func (q *readQueue) submit(t *readTask) bool { return q.insert(t, -1) }

// insert hands in a task behind the first at tasks of its caller.
func (q *readQueue) insert(t *readTask, at int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if last := len(q.idle) - 1; last >= 0 { // then no task waits
		q.idle[last] <- t // it has room
		q.idle = q.idle[:last]
		return true
	}
	q.waiting.insert(t.caller, at, t)
	return true
}

// next returns the next task for a reader, nil when the queue is closed. It waits for one on own,
// a channel of the reader's with room for one.
func (q *readQueue) next(own chan *readTask) *readTask {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	if t, ok := q.waiting.pop(); ok {
		q.mu.Unlock()
		return t
	}
	q.idle = append(q.idle, own)
	q.mu.Unlock()
	return <-own
}

// cancel removes a task that still waits.
func (q *readQueue) cancel(t *readTask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.remove(t.caller, t)
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
