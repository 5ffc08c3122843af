package main_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
)

// restarted is a server that is restarted while clients write and read.
type restarted struct {
	written  atomic.Int64 // by the clients
	finished atomic.Bool  // all writers have returned

	mu      sync.Mutex
	now     *process
	changed chan struct{} // closed when now or written change
}

// begin sets the first process.
func (r *restarted) begin(p *process) { r.now, r.changed = p, make(chan struct{}) }

// restartAll restarts the server at even distances of written rows, alternately by SIGKILL and SIGTERM.
func (r *restarted) restartAll(ctx context.Context, t testing.TB, program program, restarts int, writes int64) error {
	for i := range restarts {
		if err := r.waitWritten(ctx, writes*int64(i+1)/int64(restarts+1)); err != nil {
			return err
		}
		old := r.process()
		if i%2 == 0 {
			old.kill()
		} else {
			old.terminate(t)
		}
		next := program.start(t)
		r.mu.Lock()
		r.now = next
		r.mu.Unlock()
		r.signal()
	}
	return nil
}

func (r *restarted) process() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *restarted) signal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

// wait waits for a condition, which it checks after each change.
func (r *restarted) wait(ctx context.Context, holds func() bool) error {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if holds() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *restarted) waitWritten(ctx context.Context, n int64) error {
	return r.wait(ctx, func() bool { return r.written.Load() >= n || r.finished.Load() })
}

// after returns the process that follows one that has ended.
func (r *restarted) after(ctx context.Context, p *process) (*process, error) {
	select {
	case <-p.exited:
		err := r.wait(ctx, func() bool { return r.process() != p })
		return r.process(), err
	default:
		return r.process(), ctx.Err()
	}
}
