package feed

import (
	"cmp"
	"context"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// Poll returns up to pollRows changes to deliver, in the order of positions. If more are left
// it signals Wake again.
func (s *Subscription) Poll(ctx context.Context) ([]StatusChange, error) {
	ready, logAfter := s.pollPending(nil, s.feed.limits.rows)
	if logAfter < 0 {
		return ready, nil
	}
	return s.catchUp(ctx, logAfter)
}

// PollPending is Poll of changes that are in memory, at most the capacity of buf, which is overwritten. It returns no change if the
// log must be read, and does not wait.
func (s *Subscription) PollPending(buf []StatusChange) []StatusChange {
	ready, logAfter := s.pollPending(buf[:0], cap(buf))
	if logAfter >= 0 {
		s.signal()
	}
	return ready
}

// pollPending returns pending changes, or the position after which to read the log instead.
func (s *Subscription) pollPending(buf []StatusChange, most int) (ready []StatusChange, logAfter int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued = false // a later change queues it again
	if s.logAfter >= 0 {
		return nil, s.logAfter
	}
	ready = slices.Grow(buf, s.pending.len())
	for id, change := range s.pending.all() {
		if !s.paused.has(id) {
			ready = append(ready, *change)
		}
	}
	if len(ready) > 1 {
		slices.SortFunc(ready, func(a, b StatusChange) int { return cmp.Compare(a.Position, b.Position) })
	}
	if len(ready) > most {
		ready = ready[:most]
		s.signal()
	}
	for i := range ready {
		s.markDelivered(ready[i].UserID, ready[i].Position)
	}
	return ready, -1
}

// catchUp reads one page of the log. The log does not record the origin of a change, so a
// stream receives its own change if no response delivered it.
func (s *Subscription) catchUp(ctx context.Context, after int64) ([]StatusChange, error) {
	page, err := s.feed.store.Log(ctx, user.LogQuery{
		After: after, Actions: statusActions, MaxRows: s.feed.limits.rows, MaxBytes: pollBytes,
	})
	if err != nil {
		return nil, err
	}
	changes, err := s.feed.newest(ctx, page.Rows)
	if err != nil {
		return nil, err
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal()
	if s.logAfter != after {
		return nil, nil // SubscribeAll moved to an earlier position
	}
	s.logAfter = page.Reached
	if page.Done && s.feed.Head().Position == page.Reached {
		// Every later commit is pushed. If the store is ahead of the feed's head, a commit
		// that is delivered here would be pushed again.
		s.logAfter = -1
	}
	return slices.DeleteFunc(changes, s.skip), nil
}

// skip reports whether a change from the log must not be delivered now: it was delivered
// before, or it waits for an outstanding response.
func (s *Subscription) skip(change StatusChange) bool {
	if last, _ := s.positions.get(change.UserID); change.Position <= last {
		return true
	}
	if s.paused.has(change.UserID) {
		s.pending.set(change.UserID, &change)
		return true
	}
	s.markDelivered(change.UserID, change.Position)
	return false
}
