package feed_test

import (
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// poll returns all changes that can be delivered.
func (b *bench) poll(s *feed.Subscription) []feed.StatusChange {
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

// subscribe subscribes to a user whose current status is delivered.
func (b *bench) subscribe(s *feed.Subscription, id int64) {
	b.Helper()
	if _, err := s.Pause(id); err != nil {
		b.Fatal(err)
	}
	s.Resume(id, b.feed.Head().Position)
}

func TestSubscriptionConflatesStatuses(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.subscribe(s, ids[0])
	b.subscribe(s, ids[1])
	b.setStatus(ids[0], user.StatusInactive, 0)
	b.setStatus(ids[1], user.StatusSuspended, 0)
	last := b.setStatus(ids[0], user.StatusSuspended, 0)
	b.setStatus(ids[2], user.StatusSuspended, 0) // not subscribed
	got := b.poll(s)
	if len(got) != 2 || got[0].UserID != ids[1] || got[1].UserID != ids[0] {
		t.Fatalf("Poll() = %+v, want two changes by position", got)
	}
	if got[1].Position != last || got[1].Current.Status != user.StatusSuspended {
		t.Errorf("Poll()[1] = %+v, want the newest status", got[1])
	}
	b.apply(&user.Record{ID: ids[0], Action: "other"}, user.Author{})
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v after a row without a status, want none", got)
	}
}

func TestSubscriptionSkipsOwnChanges(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(b.feed.NewOrigin())
	defer s.Close()
	b.subscribe(s, id)
	b.setStatus(id, user.StatusInactive, 1)
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v after its own change, want none", got)
	}
	b.setStatus(id, user.StatusActive, 2)
	if got := b.poll(s); len(got) != 1 {
		t.Errorf("Poll() = %+v after a change of another stream, want one", got)
	}
}

func TestPauseDefersChangesUntilResume(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.subscribe(s, id)
	if paused, err := s.Pause(id); paused.Fresh || paused.Outstanding != 0 || err != nil {
		t.Fatalf("Pause() = %+v, %v, want a subscribed user without outstanding responses", paused, err)
	}
	responded := b.setStatus(id, user.StatusInactive, 0)
	if got := b.poll(s); len(got) != 0 {
		t.Fatalf("Poll() = %+v before Resume, want none", got)
	}
	later := b.setStatus(id, user.StatusSuspended, 0)
	s.Resume(id, responded)
	if got := b.poll(s); len(got) != 1 || got[0].Position != later {
		t.Errorf("Poll() = %+v after Resume, want position %d", got, later)
	}
	if _, err := s.Pause(id); err != nil {
		t.Fatal(err)
	}
	last := b.setStatus(id, user.StatusActive, 0)
	s.Resume(id, last) // delivered by the response
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v after Resume, want none", got)
	}
}

func TestSubscriptionDeliversDeletion(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.subscribe(s, id)
	b.delete(id)
	got := b.poll(s)
	if len(got) != 1 || !user.HasReason(got[0].Err(), user.UserDeleted) {
		t.Fatalf("Poll() = %+v, want a deletion", got)
	}
	s.Unsubscribe(id)
	b.apply(&user.Undelete{ID: id}, user.Author{})
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v after Unsubscribe, want none", got)
	}
}

func TestSubscriptionLimitsUsers(t *testing.T) {
	b := newBench(t)
	s := b.feed.Subscribe(0)
	defer s.Close()
	for id := range int64(feed.MaxFollows) {
		b.subscribe(s, id+1)
	}
	if _, err := s.Pause(feed.MaxFollows + 1); !user.HasReason(err, user.TooManyFollows) {
		t.Errorf("Pause() beyond the limit = %v, want TOO_MANY_FOLLOWS", err)
	}
	if paused, err := s.Pause(1); paused.Fresh || err != nil {
		t.Errorf("Pause() of a subscribed user = %+v, %v, want no error", paused, err)
	}
}

// More users change than are kept in memory.
func TestSubscribeAllReadsLogWhenBehind(t *testing.T) {
	b := newBench(t)
	b.feed.SetLimits(feed.MaxFollows, 100, 10)
	b.createMany(10)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(b.feed.Head().Position)
	if got := b.poll(s); len(got) != 0 {
		t.Fatalf("Poll() = %+v, want no change before the start", got)
	}
	want := make(map[int64]bool)
	for range 12 {
		for _, id := range b.createMany(10) {
			want[id] = true
		}
	}
	position := int64(0)
	for _, change := range b.poll(s) {
		if change.Position <= position {
			t.Fatalf("Poll() has position %d after %d", change.Position, position)
		}
		position = change.Position
		delete(want, change.UserID)
	}
	if len(want) != 0 {
		t.Errorf("Poll() missed %d users", len(want))
	}
	id := b.create()
	if got := b.poll(s); len(got) != 1 || got[0].UserID != id {
		t.Errorf("Poll() = %+v after catching up, want the new user", got)
	}
}

func TestSubscribeAllStartsAfterPosition(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	after := b.feed.Head().Position
	b.setStatus(ids[1], user.StatusInactive, 0)
	b.setStatus(ids[1], user.StatusActive, 0)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(after)
	if got := b.poll(s); len(got) != 1 || got[0].UserID != ids[1] || got[0].Current.Status != user.StatusActive {
		t.Errorf("Poll() = %+v, want the newest status of user %d", got, ids[1])
	}
}

func TestStatusesSince(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	after := b.feed.Head().Position
	b.setStatus(ids[2], user.StatusInactive, 0)
	b.delete(ids[0])
	all, err := b.feed.Statuses(t.Context(), append(ids, 77), 0)
	if err != nil || len(all) != 4 || !user.HasReason(all[3].Err(), user.UserNotFound) {
		t.Fatalf("Statuses() = %+v, %v, want four, the last unknown", all, err)
	}
	since, err := b.feed.Statuses(t.Context(), ids, after)
	if err != nil || len(since) != 2 {
		t.Fatalf("Statuses() since %d = %+v, %v, want two", after, since, err)
	}
}

// The store publishes a commit before the feed. A change delivered by a response is not
// delivered again, with an older time.
func TestChangeDeliveredByResponseIsNotRepeated(t *testing.T) {
	store := &lateStore{Model: storetest.NewModel(nil), history: newHistory(), notef: t.Logf, during: func() {}}
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, store: store, feed: f}
	id := b.create()
	store.notifyFeed()
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
	store.notifyFeed()
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v, want none after the response", got)
	}
	b.wantDelivered(s, changed.Position)
}

// A user whose messages all failed is not subscribed, even if the second message was
// outstanding when the first failed. A response with a status subscribes.
func TestUnsubscribeWaitsForOutstandingResponse(t *testing.T) {
	for name, subscribed := range map[string]bool{"failed": false, "has a status": true} {
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
			if subscribed {
				last = b.feed.Head().Position
			}
			s.Resume(id, last)
			b.setStatus(id, user.StatusInactive, 0)
			if got := b.poll(s); (len(got) == 1) != subscribed {
				t.Errorf("Poll() = %+v, want a change: %t", got, subscribed)
			}
		})
	}
}

// A pending change of a user is not delivered after the stream unsubscribed from the user.
func TestUnsubscribeDropsPendingChange(t *testing.T) {
	b := newBench(t)
	id := b.create()
	s := b.feed.Subscribe(0)
	defer s.Close()
	b.subscribe(s, id)
	b.setStatus(id, user.StatusInactive, 0)
	s.Unsubscribe(id)
	if got := b.poll(s); len(got) != 0 {
		t.Errorf("Poll() = %+v after Unsubscribe, want none", got)
	}
}

// The feed does not retain closed subscriptions.
func TestCloseRemovesSubscription(t *testing.T) {
	b := newBench(t)
	id := b.create()
	byID, all := b.feed.Subscribe(0), b.feed.Subscribe(0)
	b.subscribe(byID, id)
	all.SubscribeAll(b.feed.Head().Position)
	if got, want := b.feed.Subscriptions(), 2; got != want {
		t.Errorf("Subscriptions() = %d, want %d", got, want)
	}
	byID.Close()
	all.Close()
	if got := b.feed.Subscriptions(); got != 0 {
		t.Errorf("Subscriptions() = %d after Close, want 0", got)
	}
}
