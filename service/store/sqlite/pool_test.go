package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// A reader whose disk does not answer holds nobody up beyond the caller's context, and
// what it finds later is given to nobody.
func TestAReadThatHangsIsGivenUp(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	u := createUser(t, s, "anna")
	let := make(chan struct{})
	for range readers {
		begun := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		got, err := read(ctx, s.pool, func(*reader) (int, error) { close(begun); <-let; return 1, nil })
		if !errors.Is(err, context.Canceled) || got != 0 {
			t.Fatalf("got %d, %v", got, err)
		}
	}
	// All readers hang now: the next one waits for its turn, no longer than it wants.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { _, err := s.Get(ctx, u.ID); ended <- err }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(let)
	for range 100 { // no reader still holds an errand that another read has taken up
		if got, err := s.Get(t.Context(), u.ID); err != nil || got.ID != u.ID {
			t.Fatal(got, err)
		}
		if _, err := s.Get(t.Context(), 1); !user.HasReason(err, user.UserNotFound) {
			t.Fatal(err)
		}
	}
}
