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

// An error of the store is that of the chunk.
func TestChunkOfFailingStore(t *testing.T) {
	t.Parallel()
	store := &recordingStore{fail: errors.New("fault of a test"), batches: []int{1}} // the second batch fails
	var c batch.Chunk
	c.Add(user.Change{Op: &user.ReadBarrier{ID: 1}}, nil)
	if results, _, err := c.Apply(t.Context(), store, false, 0); !errors.Is(err, store.fail) {
		t.Errorf("Apply = %v, %v, want the fault", results, err)
	}
}

// An unexpected error of an item is that of an atomic chunk.
func TestUnexpectedErrorOfAtomicChunk(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault of a test")
	var c batch.Chunk
	c.Add(user.Change{}, fault)
	if _, _, err := c.Apply(t.Context(), new(recordingStore), true, 0); !errors.Is(err, fault) || !strings.HasPrefix(err.Error(), "item 0: ") {
		t.Errorf("Apply = %v, want the fault of item 0", err)
	}
}

// An atomic chunk with invalid items is not submitted. Its error names the items, and lists 100 violations.
func TestInvalidAtomicChunk(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	var c batch.Chunk
	c.Add(user.Change{Op: &user.ReadBarrier{ID: 1}}, nil)
	for range 100 {
		c.Add(user.Change{}, user.NewFieldErrorf("email", "must be an address"))
	}
	_, _, err := c.Apply(t.Context(), store, true, 0)
	if failure, ok := user.AsError(err); !ok || len(failure.Violations) != 100 || strings.Contains(failure.Message, "the first") {
		t.Errorf("Apply(100 invalid items) = %v, want all violations", err)
	}
	c.Add(user.Change{}, user.NewFieldErrorf("email", "must be an address"))
	_, _, err = c.Apply(t.Context(), store, true, 0)
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

// A failure is short if its encoded size with its text exceeds the rest of the budget.
func TestSizeOfFailure(t *testing.T) {
	t.Parallel()
	const index = 10
	invalid := user.NewFieldErrorf("email", "must be an address")
	log := slog.New(slog.DiscardHandler)
	f := batch.NewFailure(log, index, 1, invalid)
	text := "item 10: " + f.GetMessage()
	size := proto.Size(&userv1.BatchCreateUsersResponse{Failures: []*userv1.ItemFailure{f}})
	if got := batch.EmbeddedSize(f); got != size {
		t.Errorf("EmbeddedSize = %d, want %d", got, size)
	}
	withText := size + 2 + len(text) // a number and a length of one byte
	for _, row := range []struct {
		budget     int
		text, long bool
	}{
		{size, false, true}, {size - 1, false, false}, {withText, true, true}, {withText - 1, true, false},
	} {
		l := batch.Failures{Log: log, Remaining: batch.NewSizeBudget(row.budget+batch.Envelope+3*50, 3, 50), WithTexts: row.text}
		l.Add(index, 1, invalid)
		if long := len(l.Listed[0].GetFieldViolations()) > 0; long != row.long {
			t.Errorf("budget %d of %d, text %t: the failure is long = %t, want %t", row.budget, size, row.text, long, row.long)
		}
		if row.text && row.long && (len(l.Texts) != 1 || l.Texts[0] != text) {
			t.Errorf("texts = %q, want %q", l.Texts, text)
		}
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
