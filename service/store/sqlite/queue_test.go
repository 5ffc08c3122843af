package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// callerLength is how many of the smallest batches of one caller may wait.
const callerLength = queueLength * callerBytes / queueBytes

// A full queue on a sound disk slows callers down, and refuses nobody.
func TestSubmitWaitsForRoom(t *testing.T) {
	large := user.Batch{Changes: []user.Change{{Op: &user.Record{ID: 1, Details: map[string]string{"k": strings.Repeat("x", 1<<20)}}}}}
	for name, test := range map[string]struct {
		batch user.Batch
		fit   int
	}{
		"batches": {user.Batch{}, callerLength},
		"bytes":   {large, callerBytes>>20 - 1}, // each is a little more than a mebibyte
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
			let := hold(t, s)
			for range test.fit {
				s.Submit(t.Context(), test.batch)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := s.Submit(ctx, test.batch).Wait(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			waiting := make(chan *user.Pending)
			go func() { waiting <- s.Submit(t.Context(), test.batch) }()
			runtime.Gosched()
			let()
			if _, err := (<-waiting).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// While a transaction does not end, nobody is let into the queue or goes on waiting for
// room in it; but for the probe. When it has ended, all is as before.
func TestAStuckDiskIsOverloaded(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	s.pace.patience = 50 * time.Millisecond
	u := createUser(t, s, "anna")
	let := hold(t, s)
	for range callerLength - 1 {
		s.Submit(t.Context(), user.Batch{})
	}
	// They take the last place, wait for room, and are refused.
	var err error
	for !user.HasReason(err, user.Overloaded) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		pending := s.Submit(ctx, user.Batch{Changes: []user.Change{{Op: &user.Record{ID: u.ID, Action: "app.seen"}}}})
		select {
		case <-pending.Done():
			_, err = pending.Wait(ctx)
		default: // it has the last place
		}
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("it waited for room though the writer does not get on")
		}
	}
	probed := make(chan error, 1)
	go func() { probed <- s.Probe(t.Context()) }()
	let()
	if err := <-probed; err != nil {
		t.Errorf("probe: %v", err)
	}
	createUser(t, s, "berta")
}

// No batch weighs more than there is room for, or it would wait for ever.
func TestTheLargestBatchFits(t *testing.T) {
	details := map[string]string{"k": strings.Repeat("x", 1<<20)}
	var batch user.Batch
	for range 100 {
		batch.Changes = append(batch.Changes, user.Change{Op: &user.Record{ID: 1, Details: details}})
	}
	if got := weigh(batch); got != callerBytes {
		t.Errorf("it weighs %d, want %d", got, callerBytes)
	}
}
