package feed_test

import (
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/feed"
)

// In any order of commits, notifications, messages, responses and reads: a position has one
// status on all streams, a stream never delivers an older status of a user or the same
// position twice, and DeliveredThrough misses nothing.
func TestStatusesNeverGoBack(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		if err := runWorld(r, faultNone); err != nil {
			r.Fatal(err)
		}
	})
}

// The property detects each injected fault.
func TestStatusPropertyFindsFaults(t *testing.T) {
	const tries = 3000
	for plant := faultNone + 1; plant < faultEnd; plant++ {
		t.Run(plant.String(), func(t *testing.T) {
			gen := rapid.Custom(func(r *rapid.T) error { return runWorld(r, plant) })
			for seed := range tries {
				if err := gen.Example(seed); err != nil {
					t.Logf("try %d: %v", seed+1, err)
					return
				}
			}
			t.Errorf("fault not detected in %d tries", tries)
		})
	}
}

func runWorld(r *rapid.T, plant fault) error {
	w := newWorld(r, plant)
	defer func() {
		for _, s := range w.streams {
			s.set.Close()
		}
	}()
	w.write()
	// rapid prefers small numbers, so most runs are long.
	const mostSteps = 100
	for range mostSteps - rapid.IntRange(0, mostSteps-1).Draw(r, "fewer steps") {
		s := rapid.SampledFrom(w.streams).Draw(r, "stream")
		switch rapid.IntRange(0, 10).Draw(r, "step") {
		case 0, 5:
			s.send(r)
		case 1, 6:
			s.respond()
		case 2, 7:
			w.write()
		case 3, 8, 9:
			s.poll()
		case 4:
			s.followAll(r)
		case 10:
			s.watch(r)
		}
		s.check()
		if w.err != nil {
			return w.err
		}
	}
	return w.complete()
}

// complete finishes all outstanding work and checks that everything was delivered.
func (w *world) complete() error {
	w.store.during = func() {}
	w.store.notifyFeed()
	for _, s := range w.streams {
		for len(s.messages) > 0 {
			s.respond()
		}
		for len(s.set.Wake()) > 0 {
			s.poll()
		}
		if through, head := s.set.DeliveredThrough(), w.feed.Head().Position; through != head {
			w.failf("DeliveredThrough() = %d with everything delivered, want the head, %d", through, head)
		}
		s.check()
	}
	return w.err
}

// fault is a fault injected to test the property.
type fault int

const (
	faultNone        fault = iota
	faultNewerStatus       // a newer status at the position of an older row
	faultForget            // the position of a response is lost
	faultNoPause           // changes are not deferred
	faultLose              // a change is lost
	faultRepeat            // a change is delivered twice
	faultTooFar            // DeliveredThrough is too high
	faultEnd
)

func (f fault) String() string {
	return [...]string{
		"none", "newer status", "response forgotten", "no pause", "change lost", "change repeated", "reported too far",
	}[f]
}

// faulty is a subscription with an injected fault.
type faulty struct {
	*feed.Subscription
	plant fault
	feed  *feed.Feed
	last  []feed.StatusChange
}

func inject(plant fault, set *feed.Subscription, f *feed.Feed) subscription {
	if plant == faultNone || plant == faultNewerStatus {
		return set
	}
	return &faulty{Subscription: set, plant: plant, feed: f}
}

func (s *faulty) Pause(id int64) (feed.PauseState, error) {
	paused, err := s.Subscription.Pause(id)
	if s.plant == faultNoPause && err == nil {
		s.Subscription.Resume(id, 0)
	}
	return paused, err
}

func (s *faulty) Resume(id, position int64) {
	switch s.plant {
	case faultForget:
		s.Subscription.Resume(id, 0)
	case faultNoPause:
		if _, err := s.Subscription.Pause(id); err == nil {
			s.Subscription.Resume(id, position)
		}
	default:
		s.Subscription.Resume(id, position)
	}
}

func (s *faulty) Poll(ctx context.Context) ([]feed.StatusChange, error) {
	changes, err := s.Subscription.Poll(ctx)
	switch {
	case s.plant == faultLose && len(changes) > 1:
		return changes[1:], err
	case s.plant == faultRepeat && len(changes) == 0:
		return s.last, err
	}
	s.last = changes
	return changes, err
}

func (s *faulty) DeliveredThrough() int64 {
	if s.plant == faultTooFar {
		return s.feed.Head().Position
	}
	return s.Subscription.DeliveredThrough()
}
