package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// callerLength is the number of smallest batches of one caller that fit into the queue.
const callerLength = group.QueueLength * group.CallerBytes / group.QueueBytes

// Submit blocks while the queue is full.
func TestSubmitBlocksOnFullQueue(t *testing.T) {
	large := user.Batch{Changes: []user.Change{{Op: &user.Record{ID: 1, Details: map[string]string{"k": strings.Repeat("x", 1<<20)}}}}}
	for name, test := range map[string]struct {
		batch user.Batch
		fit   int
	}{
		"batches": {user.Batch{}, callerLength},
		"bytes":   {large, group.CallerBytes>>20 - 1}, // each is slightly more than 1 MiB
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
			resume := hold(t, s)
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
			resume()
			if _, err := (<-waiting).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// While the writer is stalled, Submit fails with OVERLOADED, also for blocked callers, but the probe
// is queued. Submit succeeds again after the transaction has ended.
func TestStalledWriterIsOverloaded(t *testing.T) {
	s := openPlanted(t, filepath.Join(t.TempDir(), "users.db"), Options{group: group.Options{StallTimeout: 50 * time.Millisecond}})
	u := createUser(t, s, "anna")
	resume := hold(t, s)
	for range callerLength - 1 {
		s.Submit(t.Context(), user.Batch{})
	}
	// One batch takes the last slot, others block and are rejected.
	var err error
	for !user.HasReason(err, user.Overloaded) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		pending := s.Submit(ctx, user.Batch{Changes: []user.Change{{Op: &user.Record{ID: u.ID, Action: "app.seen"}}}})
		select {
		case <-pending.Done():
			_, err = pending.Wait(ctx)
		default: // queued
		}
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("Submit blocked while the writer is stalled")
		}
	}
	probed := make(chan error, 1)
	go func() { probed <- s.Probe(t.Context()) }()
	resume()
	if err := <-probed; err != nil {
		t.Errorf("Probe: %v", err)
	}
	createUser(t, s, "berta")
}
