package feed_test

import (
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// take returns what there is to tell, until nothing is left.
func (b *bench) take(s *feed.Subscription) []feed.StatusChange {
	b.Helper()
	var all []feed.StatusChange
	for {
		select {
		case <-s.Wake():
		default:
			return all
		}
		changes, err := s.Poll(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, changes...)
	}
}

// follow follows a user whose present status is known.
func (b *bench) follow(s *feed.Subscription, id int64) {
	b.Helper()
	if _, err := s.Pause(id); err != nil {
		b.Fatal(err)
	}
	s.Resume(id, b.feed.Head().Position)
}

func TestFollowedKeepsTheNewestStatusOfEachUser(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.follow(s, ids[0])
	b.follow(s, ids[1])
	b.setStatus(ids[0], user.StatusInactive, 0)
	b.setStatus(ids[1], user.StatusSuspended, 0)
	last := b.setStatus(ids[0], user.StatusSuspended, 0)
	b.setStatus(ids[2], user.StatusSuspended, 0) // nobody follows it
	got := b.take(s)
	if len(got) != 2 || got[0].UserID != ids[1] || got[1].UserID != ids[0] {
		t.Fatalf("got %+v", got)
	}
	if got[1].Position != last || got[1].Current.Status != user.StatusSuspended {
		t.Errorf("got %+v, want the newest", got[1])
	}
	b.apply(&user.Record{ID: ids[0], Action: "other"}, user.Author{})
	if got := b.take(s); len(got) != 0 {
		t.Errorf("a row that is no status was told: %+v", got)
	}
}

func TestFollowedIsNotToldItsOwnChanges(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(b.feed.NewOrigin())
	defer s.Close()
	b.follow(s, id)
	b.setStatus(id, user.StatusInactive, 1)
	if got := b.take(s); len(got) != 0 {
		t.Errorf("told its own: %+v", got)
	}
	b.setStatus(id, user.StatusActive, 2)
	if got := b.take(s); len(got) != 1 {
		t.Errorf("not told another's: %+v", got)
	}
}

func TestHoldKeepsChangesBehindTheAnswer(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.follow(s, id)
	if paused, err := s.Pause(id); paused.Fresh || paused.Outstanding != 0 || err != nil {
		t.Fatalf("%+v, %v", paused, err)
	}
	answered := b.setStatus(id, user.StatusInactive, 0)
	if got := b.take(s); len(got) != 0 {
		t.Fatalf("told before the answer: %+v", got)
	}
	later := b.setStatus(id, user.StatusSuspended, 0)
	s.Resume(id, answered)
	if got := b.take(s); len(got) != 1 || got[0].Position != later {
		t.Errorf("after the answer: %+v, want position %d", got, later)
	}
	if _, err := s.Pause(id); err != nil {
		t.Fatal(err)
	}
	last := b.setStatus(id, user.StatusActive, 0)
	s.Resume(id, last) // the answer has told of it
	if got := b.take(s); len(got) != 0 {
		t.Errorf("told again: %+v", got)
	}
}

func TestFollowedTellsOfDeletion(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.follow(s, id)
	b.delete(id)
	got := b.take(s)
	if len(got) != 1 || !user.HasReason(got[0].Gone(), user.UserDeleted) {
		t.Fatalf("got %+v", got)
	}
	s.Unsubscribe(id)
	b.apply(&user.Undelete{ID: id}, user.Author{})
	if got := b.take(s); len(got) != 0 {
		t.Errorf("told of a user who is followed no more: %+v", got)
	}
}

func TestFollowedBoundsItsUsers(t *testing.T) {
	b := newBench(t)
	s := b.feed.Subscribe(0)
	defer s.Close()
	for id := range int64(feed.MaxFollows) {
		b.follow(s, id+1)
	}
	if _, err := s.Pause(feed.MaxFollows + 1); !user.HasReason(err, user.TooManyFollows) {
		t.Errorf("got %v", err)
	}
	if paused, err := s.Pause(1); paused.Fresh || err != nil {
		t.Errorf("a user followed already was refused: %+v, %v", paused, err)
	}
}

// TestEverybodyFallsBackToTheLog lets more users change than are kept in memory.
func TestEverybodyFallsBackToTheLog(t *testing.T) {
	b := newBench(t)
	b.createMany(10)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(b.feed.Head().Position)
	if got := b.take(s); len(got) != 0 {
		t.Fatalf("told of what was before: %+v", got)
	}
	want := make(map[int64]bool)
	for range 12 {
		for _, id := range b.createMany(1000) {
			want[id] = true
		}
	}
	position := int64(0)
	for _, change := range b.take(s) {
		if change.Position <= position {
			t.Fatalf("position %d after %d", change.Position, position)
		}
		position = change.Position
		delete(want, change.UserID)
	}
	if len(want) != 0 {
		t.Errorf("%d users were not told", len(want))
	}
	id := b.create()
	if got := b.take(s); len(got) != 1 || got[0].UserID != id {
		t.Errorf("after catching up: %+v", got)
	}
}

func TestEverybodyBeginsAtThePositionAskedFor(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	after := b.feed.Head().Position
	b.setStatus(ids[1], user.StatusInactive, 0)
	b.setStatus(ids[1], user.StatusActive, 0)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(after)
	if got := b.take(s); len(got) != 1 || got[0].UserID != ids[1] || got[0].Current.Status != user.StatusActive {
		t.Errorf("got %+v", got)
	}
}

func TestStatusesSince(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	after := b.feed.Head().Position
	b.setStatus(ids[2], user.StatusInactive, 0)
	b.delete(ids[0])
	all, err := b.feed.Statuses(t.Context(), append(ids, 77), 0)
	if err != nil || len(all) != 4 || !user.HasReason(all[3].Gone(), user.UserNotFound) {
		t.Fatalf("%+v, %v", all, err)
	}
	since, err := b.feed.Statuses(t.Context(), ids, after)
	if err != nil || len(since) != 2 {
		t.Fatalf("%+v, %v", since, err)
	}
}

// The store shows a commit before the feed hears of it. What a response has had of the
// commit is not delivered a second time, with an older time.
func TestResponseIsRemembered(t *testing.T) {
	store := &lateStore{Model: storetest.NewModel(nil), history: newHistory(), notef: t.Logf, during: func() {}}
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, store: store, feed: f}
	id := b.create()
	store.hear()
	s := f.Subscribe(0)
	defer s.Close()
	if _, err := s.Pause(id); err != nil {
		t.Fatal(err)
	}
	changed := b.apply(&user.SetStatus{ID: id, Status: user.StatusInactive}, user.Author{})
	found, err := store.Statuses(t.Context(), []int64{id})
	if err != nil || len(found) != 1 || found[0].Position != changed.Position {
		t.Fatalf("Statuses() = %v, %v, want position %d", found, err, changed.Position)
	}
	s.Resume(id, found[0].Position)
	store.hear()
	if got := b.take(s); len(got) != 0 {
		t.Errorf("Poll() = %+v, want nothing after the response", got)
	}
	b.wantTold(s, changed.Position)
}

// A user whose messages were all refused is not followed, also if the next message was
// outstanding when the first was refused; one that has a status follows the user.
func TestRemoveWaitsForTheOutstandingResponse(t *testing.T) {
	for name, followed := range map[string]bool{"refused": false, "has a status": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id := b.create()
			s := b.feed.Subscribe(0)
			defer s.Close()
			for range 2 {
				if _, err := s.Pause(id); err != nil {
					t.Fatal(err)
				}
			}
			s.Resume(id, 0)
			s.Unsubscribe(id)
			last := int64(0)
			if followed {
				last = b.feed.Head().Position
			}
			s.Resume(id, last)
			b.setStatus(id, user.StatusInactive, 0)
			if got := b.take(s); (len(got) == 1) != followed {
				t.Errorf("Poll() = %+v, followed: want %t", got, followed)
			}
		})
	}
}
