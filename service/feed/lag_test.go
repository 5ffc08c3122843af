package feed_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/yourorg/userservice/service/feed"
)

// The lag is that of the cursor which is furthest behind; one that waits is not behind,
// however far the log goes on without it.
func TestLagIsThatOfTheSlowest(t *testing.T) {
	b := newBench(t)
	want := func(what string, rows int64) {
		t.Helper()
		if got := b.feed.Lag(); got != rows {
			t.Errorf("%s: got %d rows, want %d", what, got, rows)
		}
	}
	want("nobody reads", 0)
	ids := b.createMany(300)
	all := b.feed.Cursor(feed.CursorOptions{})
	one := b.feed.Cursor(feed.CursorOptions{UserID: ids[0], After: 290})
	want("nothing was read", 300)
	page, err := all.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want("a page was read", int64(300-len(page.Rows)))
	for !page.AtHead {
		if page, err = all.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want("the other is behind still", 10)
	all.Close()
	if page, err = one.Read(t.Context()); err != nil || !page.AtHead {
		t.Fatal(page, err)
	}
	want("both have all", 0)
	b.createMany(50)
	want("one has not looked since", 50)

	waiting, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- one.Wait(waiting, nil) }()
	for b.feed.Lag() != 0 { // until it waits
		runtime.Gosched()
	}
	b.createMany(1000)
	want("it waits, for rows of another user", 0)
	cancel()
	if <-ended == nil {
		t.Error("it was woken by rows of another user")
	}
	want("it is about to look", 0)
	b.createMany(3)
	want("it has not looked yet", 3)
	one.Close()
	want("nobody reads again", 0)
}
