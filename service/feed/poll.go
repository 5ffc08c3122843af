package feed

import (
	"cmp"
	"context"
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// Poll returns changes to deliver, in the order of positions, at most pollRows; if there
// are more, Wake gets another value.
func (s *Subscription) Poll(ctx context.Context) ([]StatusChange, error) {
	ready, behind := s.pollPending()
	if behind < 0 {
		return ready, nil
	}
	return s.catchUp(ctx, behind)
}

// pollPending returns what is pending, or the position after which the log must be read
// instead.
func (s *Subscription) pollPending() (ready []StatusChange, behind int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind >= 0 {
		return nil, s.behind
	}
	ready = make([]StatusChange, 0, len(s.pending))
	for id, change := range s.pending {
		if _, paused := s.paused[id]; !paused {
			ready = append(ready, change)
		}
	}
	slices.SortFunc(ready, func(a, b StatusChange) int { return cmp.Compare(a.Position, b.Position) })
	if len(ready) > s.feed.limits.rows {
		ready = ready[:s.feed.limits.rows]
		s.signal()
	}
	for i := range ready {
		s.delivered(ready[i].UserID, ready[i].Position)
	}
	return ready, -1
}

// catchUp reads one page of the log instead of memory. The log does not say which
// stream made a change: a stream is sent its own if no response had it.
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
	if s.behind != after {
		return nil, nil // went back to an earlier position
	}
	s.behind = page.Reached
	if page.Done && s.feed.Head().Position == page.Reached {
		// Nothing was committed since, and what comes will be marked. A commit that
		// the store shows before the feed hears of it would be marked although it is
		// delivered.
		s.behind = -1
	}
	return slices.DeleteFunc(changes, s.defers), nil
}

// defers reports whether a change from the log is not to be delivered now: the stream
// has it already, or it waits for an outstanding response.
func (s *Subscription) defers(change StatusChange) bool {
	if change.Position <= s.named[change.UserID] {
		return true
	}
	if _, paused := s.paused[change.UserID]; paused {
		s.pending[change.UserID] = change
		return true
	}
	s.delivered(change.UserID, change.Position)
	return false
}
