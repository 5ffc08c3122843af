package feed_test

import (
	"context"
	"errors"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// A Poll has a limited number of changes, and signals that more are left.
func TestPollIsLimited(t *testing.T) {
	b := newBench(t)
	b.feed.SetLimits(10, 10, 2)
	ids := b.createMany(5)
	s := b.feed.Subscribe(0)
	defer s.Close()
	for _, id := range ids {
		b.subscribe(s, id)
		b.setStatus(id, user.StatusInactive, 0)
	}
	for i, want := range []int{2, 2, 1} {
		select {
		case <-s.Wake():
		default:
			t.Fatalf("Poll %d: not signaled", i)
		}
		changes, err := s.Poll(t.Context())
		if err != nil || len(changes) != want || changes[0].UserID != ids[2*i] {
			t.Fatalf("Poll %d = %+v, %v, want %d changes from user %d on", i, changes, err, want, ids[2*i])
		}
	}
}

// hookedStore is a store with a function that runs at each read of the log. An error of it fails the read.
type hookedStore struct {
	*storetest.Model
	log, statuses func() error
}

func (s *hookedStore) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	if err := s.log(); err != nil {
		return user.LogPage{}, err
	}
	return s.Model.Log(ctx, query)
}

func (s *hookedStore) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	if err := s.statuses(); err != nil {
		return nil, err
	}
	return s.Model.Statuses(ctx, ids)
}

func newHookedBench(t *testing.T) (*bench, *hookedStore) {
	t.Helper()
	none := func() error { return nil }
	store := &hookedStore{Model: storetest.NewModel(nil), log: none, statuses: none}
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, store: store, feed: f}, store
}

// A failed read of the log fails Poll. The next Poll has the changes.
func TestFailedCatchUpIsRepeated(t *testing.T) {
	failure := errors.New("planted")
	for name, hook := range map[string]func(*hookedStore, func() error){
		"log":      func(s *hookedStore, fail func() error) { s.log = fail },
		"statuses": func(s *hookedStore, fail func() error) { s.statuses = fail },
	} {
		t.Run(name, func(t *testing.T) {
			b, store := newHookedBench(t)
			b.createMany(3)
			s := b.feed.Subscribe(0)
			defer s.Close()
			s.SubscribeAll(0)
			hook(store, func() error { return failure })
			if changes, err := s.Poll(t.Context()); !errors.Is(err, failure) {
				t.Errorf("Poll() = %+v, %v, want the error of the store", changes, err)
			}
			hook(store, func() error { return nil })
			if got := b.poll(s); len(got) != 3 {
				t.Errorf("Poll() = %+v after a failed one, want 3 changes", got)
			}
		})
	}
}

// A failed read fails Statuses.
func TestFailedStatuses(t *testing.T) {
	failure := errors.New("planted")
	b, store := newHookedBench(t)
	store.log = func() error { return failure }
	if got, err := b.feed.Statuses(t.Context(), []int64{77}, 1); !errors.Is(err, failure) {
		t.Errorf("Statuses() = %+v, %v with a failed read of the log, want the error", got, err)
	}
	store.statuses = func() error { return failure }
	if got, err := b.feed.Statuses(t.Context(), []int64{77}, 0); !errors.Is(err, failure) {
		t.Errorf("Statuses() = %+v, %v with a failed read, want the error", got, err)
	}
}

// A purge has its position only if the client has the position of an earlier status.
func TestStatusesOfPurgedUser(t *testing.T) {
	b, _ := newHookedBench(t)
	id := b.create()
	b.apply(&user.Delete{ID: id}, user.Author{})
	purged := b.apply(&user.Purge{ID: id}, user.Author{}).Position
	for after, want := range map[int64]int64{0: 0, 1: purged} {
		got, err := b.feed.Statuses(t.Context(), []int64{id}, after)
		if err != nil || len(got) != 1 || got[0].Position != want || !user.HasReason(got[0].Err(), user.UserNotFound) {
			t.Errorf("Statuses() after %d = %+v, %v, want a purge at position %d", after, got, err, want)
		}
	}
	if got, err := b.feed.Statuses(t.Context(), []int64{id}, purged); err != nil || len(got) != 0 {
		t.Errorf("Statuses() after the purge = %+v, %v, want none", got, err)
	}
}

// An earlier start during a read of the log is not lost with the result of the read.
func TestSubscribeAllDuringCatchUp(t *testing.T) {
	b, store := newHookedBench(t)
	ids := b.createMany(4)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(3)
	store.log = func() error {
		s.SubscribeAll(1)
		return nil
	}
	got := map[int64]bool{}
	for _, change := range b.poll(s) {
		got[change.UserID] = true
	}
	for _, id := range ids[1:] {
		if !got[id] {
			t.Errorf("Poll() has no change of user %d, want the changes after position 1", id)
		}
	}
}

// While the first response for a user is outstanding, a second message does not advance DeliveredThrough past
// the change of the first one.
func TestSecondPauseKeepsThePosition(t *testing.T) {
	b, _ := newHookedBench(t)
	id := b.create()
	origin := b.feed.NewOrigin()
	s := b.feed.Subscribe(origin)
	defer s.Close()
	for range 2 {
		if _, err := s.Pause(id); err != nil {
			t.Fatal(err)
		}
		b.setStatus(id, user.StatusInactive, origin)
		b.wantDelivered(s, 1)
	}
}

// A subscription to all users has a limited number of positions. It evicts those that are not needed first.
func TestPositionsAreEvicted(t *testing.T) {
	const limit = 3
	b, _ := newHookedBench(t)
	b.feed.SetLimits(limit, 10, 10)
	ids := b.createMany(20)
	origin := b.feed.NewOrigin()
	s := b.feed.Subscribe(origin)
	defer s.Close()
	s.SubscribeAll(0)
	paused, ahead := ids[0], ids[1]
	for _, id := range []int64{paused, ahead, ids[2]} {
		if _, err := s.Pause(id); err != nil {
			t.Fatal(err)
		}
	}
	s.Resume(ahead, 2) // after the position read so far, 0: the log must not deliver it again
	s.Resume(ids[2], 0)
	for _, id := range ids[3:] {
		if got := b.subscribeAt(s, id, 0).Users; got > limit || got != s.Positions() {
			t.Fatalf("Pause() = %d users with %d positions, want the same, at most %d", got, s.Positions(), limit)
		}
	}
	s.Resume(paused, 0)
	for _, change := range b.poll(s) {
		if change.UserID == ahead {
			t.Errorf("Poll() has user %d, whose status was delivered by a response", ahead)
		}
	}
}

// subscribeAt subscribes to a user whose status at a position is delivered.
func (b *bench) subscribeAt(s *feed.Subscription, id, position int64) feed.PauseState {
	b.Helper()
	paused, err := s.Pause(id)
	if err != nil {
		b.Fatal(err)
	}
	s.Resume(id, position)
	return paused
}

// A subscription to all users keeps a limited number of changes, and reads the others from the log. Those of
// users subscribed by id do not count.
func TestPendingIsLimited(t *testing.T) {
	const limit = 3
	b, _ := newHookedBench(t)
	b.feed.SetLimits(10, limit, 10)
	s := b.feed.Subscribe(0)
	defer s.Close()
	followed := b.createMany(4)
	for _, id := range followed {
		b.subscribe(s, id)
	}
	for _, id := range followed {
		b.setStatus(id, user.StatusInactive, 0)
	}
	if got := s.Pending(); got != len(followed) {
		t.Errorf("%d changes of users subscribed by id are pending, want %d", got, len(followed))
	}
	b.poll(s)
	s.SubscribeAll(b.feed.Head().Position)
	b.poll(s)
	if got := b.feed.Subscriptions(); got != 1 {
		t.Errorf("%d registrations after SubscribeAll, want 1", got)
	}
	for n := range 2 * limit {
		b.create()
		if got, want := s.Pending(), min(n+1, limit); n < limit && got != want || got > limit {
			t.Fatalf("%d changes are pending after %d creates, want at most %d", got, n+1, limit)
		}
	}
	if got := b.poll(s); len(got) != 2*limit {
		t.Errorf("Poll() = %d changes, want %d", len(got), 2*limit)
	}
}
