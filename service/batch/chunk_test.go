package batch_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/user"
)

func TestChunkHasResultPerItem(t *testing.T) {
	t.Parallel()
	invalid := user.NewFieldErrorf("email", "must be an address")
	var c batch.Chunk
	c.Add(user.Change{}, invalid)
	c.Add(user.Change{Op: &user.ReadBarrier{ID: 1}}, nil)
	c.Add(user.Change{}, invalid)
	c.Add(user.Change{Op: &user.ReadBarrier{ID: 2}}, nil)
	results, position, err := c.Apply(t.Context(), new(recordingStore), false, 0)
	if err != nil || len(results) != 4 || position != 12 {
		t.Fatalf("Apply = %d results at %d, %v, want 4 at 12", len(results), position, err)
	}
	for i, isValid := range []bool{false, true, false, true} {
		if got := results[i].Err == nil; got != isValid {
			t.Errorf("results[%d] = %+v, want success: %t", i, results[i], isValid)
		}
	}
}

// An atomic chunk with invalid items is not submitted. Its error names the items, and lists 100 violations.
func TestInvalidAtomicChunk(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	var c batch.Chunk
	c.Add(user.Change{Op: &user.ReadBarrier{ID: 1}}, nil)
	for range 101 {
		c.Add(user.Change{}, user.NewFieldErrorf("email", "must be an address"))
	}
	_, _, err := c.Apply(t.Context(), store, true, 0)
	failure, ok := user.AsError(err)
	if !ok || len(failure.Violations) != 100 || failure.Violations[0].Field != "requests[1].email" {
		t.Fatalf("Apply = %v, want 100 violations from requests[1].email on", err)
	}
	if !strings.Contains(failure.Message, "the first 100 of 101 violations") || len(store.batches) != 0 {
		t.Errorf("error = %q with %d batches, want the number of violations and no batch", failure.Message, len(store.batches))
	}
}

func TestNameItem(t *testing.T) {
	t.Parallel()
	plain := errors.New("disk failure")
	if got := batch.NameItem(plain); got != plain { //nolint:errorlint // unchanged
		t.Errorf("NameItem(%v) = %v, want it unchanged", plain, got)
	}
	named := batch.NameItem(&user.ItemError{Index: 3, Err: user.NewFieldErrorf("email", "must be an address")})
	failure, _ := user.AsError(named)
	if failure == nil || failure.Violations[0].Field != "requests[3].email" || !strings.HasPrefix(failure.Message, "item 3: ") {
		t.Errorf("NameItem = %v, want the item in the message and the field", named)
	}
	if got := batch.NameItem(&user.ItemError{Index: 3, Err: plain}); !errors.Is(got, plain) || !strings.HasPrefix(got.Error(), "item 3: ") {
		t.Errorf("NameItem = %v, want the item and the cause", got)
	}
}

// All failures are counted, 1,000 are listed, and the list stays within its budget and short items.
func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	const budget = 20_000
	l := batch.Failures{Log: slog.New(slog.DiscardHandler), Remaining: batch.SizeBudget(budget), WithTexts: true}
	for i := range 1500 {
		l.Add(i, int64(i), user.NewFieldErrorf("email", "must be an address, %s", strings.Repeat("x", 300)))
	}
	if l.Count != 1500 || len(l.Listed) != batch.MaxFailures || len(l.Texts) != batch.MaxFailures || !l.Full() {
		t.Errorf("Failures = %d listed, %d texts of %d, want 1000 of 1500", len(l.Listed), len(l.Texts), l.Count)
	}
	long, size := 0, 0
	for i, f := range l.Listed {
		if f.GetIndex() != int64(i) || f.GetReason() != userv1.ErrorReason_INVALID_FIELD {
			t.Fatalf("Listed[%d] = %v, want its index and reason", i, f)
		}
		if len(f.GetFieldViolations()) > 0 {
			long++
			size += batch.EmbeddedSize(f)
		} else if n := proto.Size(f); n > batch.ShortItemBytes {
			t.Errorf("short item has %d bytes, want at most %d", n, batch.ShortItemBytes)
		}
	}
	if long == 0 || size > budget {
		t.Errorf("%d long items of %d bytes, want some within %d", long, size, budget)
	}
}

// The text of an unexpected error is not sent; it is logged with the incident that the client receives.
func TestUnexpectedItemError(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	f := batch.NewFailure(slog.New(slog.NewTextHandler(&log, nil)), 7, 3, errors.New("disk failure"))
	incident := f.GetMetadata()["incident"]
	if f.GetReason() != userv1.ErrorReason_INTERNAL || strings.Contains(f.GetMessage(), "disk") || incident == "" {
		t.Errorf("NewFailure = %v, want INTERNAL with an incident", f)
	}
	if !strings.Contains(log.String(), incident) || !strings.Contains(log.String(), "disk failure") {
		t.Errorf("log = %q, want the incident %q and the error", log.String(), incident)
	}
}
