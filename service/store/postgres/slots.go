package postgres

import (
	"context"
	"sync"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// slots bound the reads, and the scans of them, that run at the same time. They are granted to callers round-robin.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting group.Fair[chan struct{}]
}

func newSlots(n int) *slots { return &slots{free: n} }

// acquire blocks until the caller has a slot.
func (s *slots) acquire(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	caller, granted := user.CallerFromContext(ctx), make(chan struct{})
	s.waiting.Push(caller, granted)
	s.mu.Unlock()
	processor := fair.FromContext(ctx)
	defer processor.Resume(processor.Release())
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	waits := s.waiting.Remove(caller, granted)
	s.mu.Unlock()
	if !waits {
		s.release()
	}
	return context.Cause(ctx)
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if granted, ok := s.waiting.Pop(); ok {
		close(granted)
		return
	}
	s.free++
}
