package feed_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/yourorg/userservice/service/feed"
)

// The slowest cursor determines the lag. An idle cursor has none.
func TestLagIsThatOfSlowestCursor(t *testing.T) {
	b := newBench(t)
	want := func(step string, rows int64) {
		t.Helper()
		if got := b.feed.Lag(); got != rows {
			t.Errorf("%s: Lag() = %d, want %d", step, got, rows)
		}
	}
	want("no cursor", 0)
	ids := b.createMany(300)
	all := b.feed.Cursor(feed.CursorOptions{})
	one := b.feed.Cursor(feed.CursorOptions{UserID: ids[0], After: 290})
	want("nothing read", 300)
	page, err := all.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want("one page read", int64(300-len(page.Rows)))
	for !page.AtHead {
		if page, err = all.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want("the other cursor is behind", 10)
	all.Close()
	if page, err = one.Read(t.Context()); err != nil || !page.AtHead {
		t.Fatal(page, err)
	}
	want("at the head", 0)
	b.createMany(50)
	want("new rows, no read yet", 50)

	waiting, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- one.Wait(waiting, nil) }()
	for b.feed.Lag() != 0 { // until the cursor is idle
		runtime.Gosched()
	}
	b.createMany(100)
	want("idle, rows of another user", 0)
	cancel()
	if <-ended == nil {
		t.Error("Wait() = nil after rows of another user, want it to block")
	}
	want("after Wait", 0)
	b.createMany(3)
	want("new rows after Wait", 3)
	one.Close()
	want("all cursors closed", 0)
}
