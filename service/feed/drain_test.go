package feed_test

import (
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// A slow reader resumes after the last row it read, not at the head.
func TestDrainReturnsCursorPosition(t *testing.T) {
	b := newBench(t)
	b.createMany(300)
	cursor := b.feed.Cursor(feed.CursorOptions{})
	defer cursor.Close()
	page, err := cursor.Read(t.Context())
	if err != nil || page.AtHead || len(page.Rows) == 0 {
		t.Fatalf("Read() = %d rows, %v, want a page that is not the last", len(page.Rows), err)
	}
	b.feed.Drain()
	b.wantPosition(cursor.Drained(), page.Rows[len(page.Rows)-1].Position)
	b.wantPosition(cursor.Wait(t.Context(), nil), page.Rows[len(page.Rows)-1].Position)
	b.drainCursor(cursor) // waits for the prefetched page
}

// A waiting reader of a quiet user resumes at the head, not at its last row, which may be pruned by then.
func TestDrainReturnsHeadForQuietCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ids := b.createMany(2)
		cursor := b.feed.Cursor(feed.CursorOptions{UserID: ids[0]})
		defer cursor.Close()
		b.drainCursor(cursor)
		ended := make(chan error, 1)
		go func() { ended <- cursor.Wait(t.Context(), nil) }()
		synctest.Wait()
		last := b.apply(&user.Record{ID: ids[1], Action: "other"}, user.Author{}).Position
		b.feed.Drain()
		b.wantPosition(<-ended, last)
	})
}

func (b *bench) wantPosition(err error, want int64) {
	b.Helper()
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.ServerDraining {
		b.Fatalf("error = %v, want SERVER_DRAINING", err)
	}
	if got, head := e.Metadata["position"], b.feed.Head(); got != strconv.FormatInt(want, 10) || e.Metadata["epoch"] != head.Epoch {
		b.Errorf("position = %s, want %d; the head is %d", got, want, head.Position)
	}
}

// DeliveredThrough is less than the position of each pending or paused change.
func TestDeliveredThroughExcludesPending(t *testing.T) {
	b := newBench(t)
	ids := b.createMany(3)
	head := b.feed.Head().Position
	s := b.feed.Subscribe(0)
	defer s.Close()
	for _, id := range ids {
		b.subscribe(s, id)
	}
	b.wantDelivered(s, head)
	b.apply(&user.Record{ID: ids[0], Action: "other"}, user.Author{})
	b.wantDelivered(s, head+1) // the row is no status change
	if _, err := s.Pause(ids[0]); err != nil {
		t.Fatal(err)
	}
	paused := b.setStatus(ids[0], user.StatusInactive, 0)
	b.setStatus(ids[1], user.StatusInactive, 0)
	b.wantDelivered(s, paused-1)
	if got := b.poll(s); len(got) != 1 {
		t.Fatalf("Poll() = %+v, want one change", got)
	}
	b.wantDelivered(s, paused-1) // the paused change is older than the delivered one
	s.Resume(ids[0], paused)
	b.wantDelivered(s, b.feed.Head().Position)
}

// While a subscription reads the log, DeliveredThrough is the position read.
func TestDeliveredThroughDuringCatchUp(t *testing.T) {
	b := newBench(t)
	b.feed.SetLimits(feed.MaxFollows, 100, 10)
	b.createMany(10)
	s := b.feed.Subscribe(0)
	defer s.Close()
	s.SubscribeAll(4)
	b.wantDelivered(s, 4)
	b.poll(s)
	b.wantDelivered(s, 10)
	for range 12 {
		b.createMany(10)
	}
	b.wantDelivered(s, 10)
	first, err := s.Poll(t.Context())
	if err != nil || len(first) == 0 {
		t.Fatalf("Poll() = %+v, %v, want changes", first, err)
	}
	b.wantDelivered(s, first[len(first)-1].Position)
	b.poll(s)
	b.wantDelivered(s, b.feed.Head().Position)
}

func (b *bench) wantDelivered(s *feed.Subscription, want int64) {
	b.Helper()
	b.wantPosition(s.Drained(), want)
	if got := s.DeliveredThrough(); got != want {
		b.Errorf("DeliveredThrough() = %d, want %d", got, want)
	}
}
