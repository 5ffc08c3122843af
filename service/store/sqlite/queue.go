package sqlite

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

const (
	// queueBytes and queueLength bound the batches that wait.
	queueBytes  = 32 << 20
	queueLength = 1024
	// jobsLength is the room beside it for the store's own jobs: the probe must get in
	// when callers do not, or health would never hear that all is well again.
	jobsLength = 16
	// stuckAfter is how long a group may take before the disk is said to be stuck.
	stuckAfter = 3 * time.Second
)

// makeRoom waits until a batch of the weight has room in the queue. A queue that is full
// while the writer gets on is how fast callers are slowed down to what the disk can do.
// While it is stuck nobody is let in, nor goes on waiting: who waits holds memory, and
// would only hear of its deadline.
func (s *Store) makeRoom(ctx context.Context, weight int64) error {
	moving := *s.pace.moving.Load()
	if moving.Err() != nil {
		return user.ErrOverloaded()
	}
	if s.room.TryAcquire(weight) {
		return nil
	}
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	//nolint:contextcheck,nolintlint // the writer's context does not come from the caller's
	defer context.AfterFunc(moving, func() { cancel(user.ErrOverloaded()) })()
	if s.room.Acquire(waiting, weight) != nil {
		return context.Cause(waiting)
	}
	return nil
}

// weigh returns what a batch counts for in the queue. None counts for less than its
// share, so that there are never more than queueLength, nor for more than the queue.
func weigh(batch user.Batch) int64 {
	bytes := 0
	for i := range batch.Changes {
		bytes += weighOp(batch.Changes[i].Op)
	}
	return int64(min(max(bytes, queueBytes/queueLength), queueBytes))
}

// weighOp estimates the memory of what callers may make large.
func weighOp(op user.Op) int {
	bytes := 256
	tags, metadata := []string(nil), map[string]string(nil)
	switch op := op.(type) {
	case *user.Create:
		tags, metadata = op.Tags, op.Metadata
	case *user.Record:
		metadata = op.Details
	case *user.Update:
		if op.Patch.Tags != nil {
			tags = *op.Patch.Tags
		}
		if op.Patch.Metadata != nil {
			metadata = *op.Patch.Metadata
		}
		for key, value := range op.Patch.Entries {
			bytes += 64 + len(key)
			if value != nil {
				bytes += len(*value)
			}
		}
	}
	for _, tag := range tags {
		bytes += 16 + len(tag)
	}
	for key, value := range metadata {
		bytes += 64 + len(key) + len(value)
	}
	return bytes
}

// pace knows whether the writer gets on.
type pace struct {
	patience time.Duration
	moving   atomic.Pointer[context.Context] // ends when a group takes too long, and is renewed behind that

	mu   sync.Mutex
	turn int // counts the groups
	stop context.CancelFunc
}

func newPace() *pace {
	p := &pace{patience: stuckAfter}
	p.renew()
	return p
}

func (p *pace) renew() {
	moving, stop := context.WithCancel(context.Background()) // it is the writer's, no caller's
	p.moving.Store(&moving)
	p.stop = stop
}

// begin says that a group is taken up. The returned function says that it has ended.
func (p *pace) begin() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	turn := p.turn
	timer := time.AfterFunc(p.patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.turn == turn {
			p.stop()
		}
	})
	return func() {
		timer.Stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.turn++
		if (*p.moving.Load()).Err() != nil {
			p.renew()
		}
	}
}
