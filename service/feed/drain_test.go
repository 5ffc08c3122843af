package feed_test

import (
	"strconv"
	"testing"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// A reader who is behind resumes after what it has read, and not at the head.
func TestDrainGivesTheCursorItsOwnPosition(t *testing.T) {
	b := newBench(t)
	b.createMany(300)
	cursor := b.feed.Cursor(feed.CursorOptions{})
	defer cursor.Close()
	page, err := cursor.Read(t.Context())
	if err != nil || page.AtHead || len(page.Rows) == 0 {
		t.Fatalf("got %d rows, %v: want some, and more behind them", len(page.Rows), err)
	}
	b.feed.Drain()
	b.wantPosition(cursor.Drained(), page.Rows[len(page.Rows)-1].Position)
	b.wantPosition(cursor.Wait(t.Context(), nil), page.Rows[len(page.Rows)-1].Position)
	b.drainCursor(cursor) // which ends the page that is read ahead
}

func (b *bench) wantPosition(err error, want int64) {
	b.Helper()
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.ServerDraining {
		b.Fatalf("got %v", err)
	}
	if got, head := e.Metadata["position"], b.feed.Head(); got != strconv.FormatInt(want, 10) || e.Metadata["epoch"] != head.Epoch {
		b.Errorf("got position %s, want %d; the head is %d", got, want, head.Position)
	}
}

// DeliveredThrough is behind what waits to be told, wherever that waits.
func TestToldIsBehindWhatWaits(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	head := b.feed.Head().Position
	s := b.feed.Subscribe(0)
	defer s.Close()
	for _, id := range ids {
		b.follow(s, id)
	}
	b.wantTold(s, head)
	b.apply(&user.Record{ID: ids[0], Action: "other"}, user.Author{})
	b.wantTold(s, head+1) // there is nothing to tell
	if _, err := s.Pause(ids[0]); err != nil {
		t.Fatal(err)
	}
	paused := b.setStatus(ids[0], user.StatusInactive, 0)
	b.setStatus(ids[1], user.StatusInactive, 0)
	b.wantTold(s, paused-1)
	if got := b.take(s); len(got) != 1 {
		t.Fatalf("got %+v", got)
	}
	b.wantTold(s, paused-1) // the one that is kept back is older than the one that was told
	s.Resume(ids[0], paused)
	b.wantTold(s, b.feed.Head().Position)
}

// A set that has gone back to the log has told what it has read of it.
func TestToldIsBehindTheLog(t *testing.T) {
	b := newBench(t)
	b.createMany(10)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(4)
	b.wantTold(s, 4)
	b.take(s)
	b.wantTold(s, 10)
	for range 12 {
		b.createMany(1000)
	}
	b.wantTold(s, 10)
	first, err := s.Poll(t.Context())
	if err != nil || len(first) == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	b.wantTold(s, first[len(first)-1].Position)
	b.take(s)
	b.wantTold(s, b.feed.Head().Position)
}

func (b *bench) wantTold(s *feed.Subscription, want int64) {
	b.Helper()
	b.wantPosition(s.Drained(), want)
	if got := s.DeliveredThrough(); got != want {
		b.Errorf("told up to %d, want %d", got, want)
	}
}
