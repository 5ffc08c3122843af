package user_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

func TestIDsArePositiveAndOrderedByTime(t *testing.T) {
	first := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	last := time.Date(2093, 1, 1, 0, 0, 0, 0, time.UTC)
	ids := user.NewIDs(nil)
	rapid.Check(t, func(t *rapid.T) {
		at := first.Add(time.Duration(rapid.Int64Range(1, last.UnixMilli()-first.UnixMilli()-1000).Draw(t, "millis")) * time.Millisecond)
		id, err := ids.New(at)
		if err != nil || id <= 0 {
			t.Fatalf("New(%v) = %d, %v, want a positive id", at, id, err)
		}
		if later, err := ids.New(at.Add(time.Millisecond)); err != nil || later <= id {
			t.Errorf("New() = %d, %v one millisecond later, want more than %d", later, err, id)
		}
	})
	if id, err := ids.New(time.Unix(0, 0)); err != nil || id <= 0 {
		t.Errorf("New(1970) = %d, %v, want a positive id", id, err)
	}
}

func TestIDsDifferWithinAMillisecond(t *testing.T) {
	ids := user.NewIDs(bytes.NewReader([]byte{1, 0, 0, 0, 2, 0, 0, 0xff}))
	a, errA := ids.New(now)
	b, errB := ids.New(now)
	if errA != nil || errB != nil || a == b || a>>22 != b>>22 {
		t.Errorf("New() = %d, %v and %d, %v, want different ids of one millisecond", a, errA, b, errB)
	}
}

// Ids of the same time ascend by random steps. They are at most a second ahead of the time.
func TestIDsAscend(t *testing.T) {
	ids := user.NewIDs(nil)
	steps := make(map[int64]bool)
	last, err := ids.New(now)
	if err != nil {
		t.Fatal(err)
	}
	first := last >> 22
	for range 100_000 {
		id, err := ids.New(now)
		if err != nil {
			t.Fatal(err)
		}
		if ahead := id>>22 - first; ahead < 0 || ahead > 1000 {
			t.Fatalf("New() = %d, which is %d ms ahead, want 0 to 1000", id, ahead)
		}
		if step := id - last; step > 0 {
			steps[step] = true
		} else if id>>22 != first {
			t.Fatalf("New() = %d after %d, want more, or an id of the present millisecond", id, last)
		}
		last = id
	}
	if len(steps) < 1000 {
		t.Errorf("%d different steps, want random ones", len(steps))
	}
}

func TestNewIDReturnsRandomSourceError(t *testing.T) {
	broken := errors.New("broken")
	if _, err := user.NewIDs(iotest.ErrReader(broken)).New(now); !errors.Is(err, broken) {
		t.Errorf("New() error = %v, want %v", err, broken)
	}
}
