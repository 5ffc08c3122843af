package batch_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// chunkItems is the number of items of a chunk.
const chunkItems = 500

// recordingStore completes each batch with positions in order, after the batches that hold.
type recordingStore struct {
	user.Store

	mu       sync.Mutex
	batches  []int // sizes
	position int64
	open     int // batches that are not complete
	mostOpen int
	hold     int            // batches that complete only when this many are open; 0: each completes at once
	fail     error          // of the second batch
	onItem   func(id int64) // before an item is converted
	held     []func()
}

func (*recordingStore) Observe(func(user.Commit)) {}

func (*recordingStore) Head(context.Context) (user.Head, error) {
	return user.Head{Epoch: "e", Position: 10}, nil
}

func (s *recordingStore) Submit(_ context.Context, b user.Batch) *user.Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending, complete := user.NewPending()
	s.batches = append(s.batches, len(b.Changes))
	if len(s.batches) == 2 && s.fail != nil {
		complete(nil, s.fail)
		return pending
	}
	results := make([]user.Result, len(b.Changes))
	for i := range results {
		s.position++
		results[i] = user.Result{Outcome: user.OutcomeUpdated, Position: 10 + s.position}
	}
	s.open++
	s.mostOpen = max(s.mostOpen, s.open)
	s.held = append(s.held, func() { s.open--; complete(results, nil) })
	if s.open >= s.hold {
		for _, release := range s.held {
			release()
		}
		s.held = nil
	}
	return pending
}

// received is the result of a stream: indexes of items in the order of OnResult, and the failed ones.
type received struct {
	indexes, failed []int
	position        int64
	reserved        []int64 // before each item
	err             error
}

// receive sends items over a client stream to Receive. The changes of items with a negative id are invalid.
func receive(t *testing.T, store *recordingStore, limit int, f *feed.Feed, ids ...int64) received {
	t.Helper()
	return receiveWithin(t, nil, store, limit, f, ids...)
}

// receiveWithin is receive with a reservation for the items.
func receiveWithin(t *testing.T, memory *budget.Reservation, store *recordingStore, limit int, f *feed.Feed, ids ...int64) received {
	t.Helper()
	items := make([]*userv1.GetUserRequest, len(ids))
	for i, id := range ids {
		items[i] = &userv1.GetUserRequest{UserId: id}
	}
	return receiveItems(t, memory, store, limit, f, items...)
}

// maxItemBytes is the size limit of an item, drainID the id of an item that starts the drain.
const (
	maxItemBytes = 200_000
	drainID      = 1 << 40
)

func receiveItems(t *testing.T, memory *budget.Reservation, store *recordingStore, limit int, f *feed.Feed, items ...*userv1.GetUserRequest) (got received) {
	t.Helper()
	p := &batch.Pipeline{Store: store, Feed: f, Limit: limit, Memory: memory, OnResult: func(index int, result *user.Result) {
		got.indexes = append(got.indexes, index)
		if result.Err != nil {
			got.failed = append(got.failed, index)
		}
	}}
	handler := connect.NewClientStreamHandler("/test/Items", func(ctx context.Context, stream *connect.ClientStream[userv1.GetUserRequest]) (*connect.Response[emptypb.Empty], error) {
		got.position, got.err = batch.Receive(ctx, p, stream, func(item *userv1.GetUserRequest) (user.Change, error) {
			got.reserved = append(got.reserved, memory.Held(budget.Write))
			if store.onItem != nil {
				store.onItem(item.GetUserId())
			}
			if item.GetUserId() == drainID {
				f.Drain()
			}
			if item.GetUserId() < 0 {
				return user.Change{}, user.NewFieldErrorf("user_id", "must be positive")
			}
			return user.Change{Op: &user.ReadBarrier{ID: item.GetUserId()}}, nil
		})
		return connect.NewResponse(&emptypb.Empty{}), nil
	}, connect.WithReadMaxBytes(maxItemBytes))
	server := httptest.NewServer(handler)
	defer server.Close()
	stream := connect.NewClient[userv1.GetUserRequest, emptypb.Empty](server.Client(), server.URL+"/test/Items").CallClientStream(t.Context())
	for _, item := range items {
		if err := stream.Send(item); err != nil {
			break // the handler has returned
		}
	}
	_, _ = stream.CloseAndReceive()
	return got
}

func openFeed(t *testing.T, store user.Store) *feed.Feed {
	t.Helper()
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func numbers(n int) []int64 {
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = int64(i + 1)
	}
	return ids
}

// Each item has its own result, in the order received, over the ends of chunks; invalid items are not submitted.
func TestReceiveResultsInOrder(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	ids := numbers(2*chunkItems + 1)
	ids[0], ids[chunkItems], ids[2*chunkItems] = -1, -1, -1 // the last chunk has no valid item
	got := receive(t, store, 10_000, openFeed(t, store), ids...)
	if got.err != nil || !slices.IsSorted(got.indexes) || len(got.indexes) != len(ids) {
		t.Errorf("Receive(%d items) = %d results, sorted %t, %v; want one per item in order", len(ids), len(got.indexes), slices.IsSorted(got.indexes), got.err)
	}
	if want := []int{0, chunkItems, 2 * chunkItems}; !slices.Equal(got.failed, want) {
		t.Errorf("failed items = %v, want %v", got.failed, want)
	}
	if want := []int{chunkItems - 1, chunkItems - 1}; !slices.Equal(store.batches, want) {
		t.Errorf("sizes of batches = %v, want %v", store.batches, want)
	}
	if want := int64(10 + 2*chunkItems - 2); got.position != want {
		t.Errorf("position = %d, want %d, the newest of the results", got.position, want)
	}
}

// The position of a stream without results is that of its begin.
func TestReceiveNothing(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	if got := receive(t, store, 10, openFeed(t, store)); got.position != 10 || got.err != nil || len(store.batches) != 0 {
		t.Errorf("Receive(no items) = %d, %v with %d batches, want 10 without a batch", got.position, got.err, len(store.batches))
	}
}

// Chunks are received while others are committed, but at most three are open.
func TestReceiveAheadOfCommits(t *testing.T) {
	t.Parallel()
	store := &recordingStore{hold: 3}
	got := receive(t, store, 10_000, openFeed(t, store), numbers(3*chunkItems)...)
	if got.err != nil || store.mostOpen != 3 || len(got.indexes) != 3*chunkItems {
		t.Errorf("Receive(3 chunks) = %d results, %v with %d open chunks, want %d with 3", len(got.indexes), got.err, store.mostOpen, 3*chunkItems)
	}
}

func TestReceiveLimit(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	got := receive(t, store, chunkItems, openFeed(t, store), numbers(chunkItems+1)...)
	if !user.HasReason(got.err, user.TooManyItems) || len(got.indexes) != chunkItems {
		t.Errorf("Receive(limit+1 items) = %d results, %v; want TOO_MANY_ITEMS after the results of the submitted chunk", len(got.indexes), got.err)
	}
}

func TestReceiveWhileDraining(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	f := openFeed(t, store)
	f.Drain()
	got := receive(t, store, 10, f, 1)
	failure, _ := user.AsError(got.err)
	if failure == nil || failure.Reason != user.ServerDraining || failure.Metadata["position"] != "10" || len(store.batches) != 0 {
		t.Errorf("Receive = %v with %d batches, want SERVER_DRAINING at 10 without a batch", got.err, len(store.batches))
	}
}

// The error of a chunk ends the stream, and names the first item without a result.
func TestReceiveFailingStore(t *testing.T) {
	t.Parallel()
	store := &recordingStore{fail: user.NewOverloadedError()}
	got := receive(t, store, 10_000, openFeed(t, store), numbers(4*chunkItems)...)
	if !user.HasReason(got.err, user.Overloaded) || len(got.indexes) != chunkItems {
		t.Errorf("Receive = %d results, %v; want OVERLOADED after %d results", len(got.indexes), got.err, chunkItems)
	}
	if want := "apply items from " + strconv.Itoa(chunkItems) + " on: "; got.err == nil || got.err.Error()[:len(want)] != want {
		t.Errorf("error = %v, want %q and the cause", got.err, want)
	}
	if errors.Is(got.err, context.Canceled) {
		t.Errorf("error = %v, want that of the store", got.err)
	}
}

// A chunk ends at 384 KiB of messages.
func TestReceiveLargeItems(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	item := &userv1.GetUserRequest{Fields: []string{strings.Repeat("x", 128<<10-4)}}
	if got, want := proto.Size(item), 128<<10; got != want {
		t.Fatalf("size of the item = %d, want %d", got, want)
	}
	got := receiveItems(t, nil, store, 10_000, openFeed(t, store), slices.Repeat([]*userv1.GetUserRequest{item}, 7)...)
	if want := []int{3, 3, 1}; got.err != nil || !slices.Equal(store.batches, want) {
		t.Errorf("Receive(7 items of 128 KiB) = %v with batches %v, want %v", got.err, store.batches, want)
	}
}

// A failed chunk ends the stream when it must be complete, not at the end of the stream: before the ninth chunk, or when there is no
// memory for another item.
func TestReceiveStopsAtFailure(t *testing.T) {
	t.Parallel()
	store := &recordingStore{fail: errors.New("fault of a test")}
	got := receive(t, store, 10_000, openFeed(t, store), numbers(12*chunkItems)...)
	if !errors.Is(got.err, store.fail) || len(got.reserved) != 9*chunkItems {
		t.Errorf("Receive = %v after %d items, want the fault after %d", got.err, len(got.reserved), 9*chunkItems)
	}
	store = &recordingStore{fail: errors.New("fault of a test")}
	b := budget.New(budget.Options{Limit: 64 << 20, InUse: func() (live, held int64) { return 0, 0 }})
	memory, other := new(budget.Reservation), new(budget.Reservation)
	memory.Open(b, nil, budget.Known, "caller")
	other.Open(b, nil, budget.Known, "caller")
	if err := other.Grow(budget.Connection, b.CallerShare(budget.Known)-10_000); err != nil {
		t.Fatal(err)
	}
	got = receiveWithin(t, memory, store, 10_000, openFeed(t, store), numbers(200)...)
	if !errors.Is(got.err, store.fail) || len(got.reserved) >= 200 {
		t.Errorf("Receive without memory = %v after %d items, want the fault before the end", got.err, len(got.reserved))
	}
}

// A stream that fails names the item, or the drain that ended it.
func TestReceiveFailingStream(t *testing.T) {
	t.Parallel()
	large := &userv1.GetUserRequest{Fields: []string{strings.Repeat("x", maxItemBytes)}}
	for _, id := range []int64{1, drainID} {
		store := new(recordingStore)
		got := receiveItems(t, nil, store, 10, openFeed(t, store), &userv1.GetUserRequest{UserId: id}, large)
		if id == drainID && !user.HasReason(got.err, user.ServerDraining) ||
			id != drainID && (connect.CodeOf(got.err) != connect.CodeResourceExhausted || !strings.HasPrefix(got.err.Error(), "receive item 1: ")) {
			t.Errorf("Receive(%d, too large) = %v, want SERVER_DRAINING after a drain, else the error of item 1", id, got.err)
		}
	}
}

// Items are reserved until their results are known, and failures, which the response has, until the end of the request.
func TestItemsAreReserved(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		id, kept int64
		items    int
	}{
		{1, 0, chunkItems}, {-1, chunkItems * 2 << 10, chunkItems}, {-1, batch.MaxFailures * 2 << 10, batch.MaxFailures + 1},
	} {
		store := new(recordingStore)
		memory := new(budget.Reservation)
		memory.Open(budget.New(budget.Options{Limit: 1 << 30}), nil, budget.Known, "caller")
		got := receiveWithin(t, memory, store, 10_000, openFeed(t, store), slices.Repeat([]int64{test.id}, test.items)...)
		if got.err != nil || len(got.reserved) != test.items {
			t.Fatalf("Receive(%d items) = %d items, %v", test.items, len(got.reserved), got.err)
		}
		if last, least := got.reserved[chunkItems-1], int64(chunkItems*256-256); last < least {
			t.Errorf("id %d: %d bytes are reserved for %d items, want at least %d", test.id, last, chunkItems-1, least)
		}
		if kept := memory.Held(budget.Write); kept != test.kept {
			t.Errorf("id %d: %d bytes are reserved after the last result, want %d", test.id, kept, test.kept)
		}
	}
}

// Without memory for another item those before are completed, whose memory it gets. A stream that has nothing to complete
// fails with OVERLOADED.
func TestItemsWithoutMemory(t *testing.T) {
	t.Parallel()
	store := new(recordingStore)
	b := budget.New(budget.Options{Limit: 64 << 20, InUse: func() (live, held int64) { return 0, 0 }})
	share := b.CallerShare(budget.Known)
	memory, other := new(budget.Reservation), new(budget.Reservation)
	memory.Open(b, nil, budget.Known, "caller")
	other.Open(b, nil, budget.Known, "caller")
	if err := other.Grow(budget.Connection, share-10_000); err != nil {
		t.Fatal(err)
	}
	f := openFeed(t, store)
	if got := receiveWithin(t, memory, store, 10_000, f, numbers(100)...); got.err != nil || len(got.indexes) != 100 || slices.Max(got.reserved) > 10_000 {
		t.Errorf("Receive(100 items) = %d results with up to %d bytes, %v, want all within 10000", len(got.indexes), slices.Max(got.reserved), got.err)
	}
	memory.Release()
	got := receiveWithin(t, memory, store, 10_000, f, 1)
	if failure, ok := user.AsError(got.err); !ok || failure.Reason != user.Overloaded {
		t.Errorf("Receive(item) without memory = %v, want OVERLOADED", got.err)
	}
}

// An item that was received has memory although another call reserves all of the caller, if it is hardly larger than those before. Without
// memory for the next one the stream completes its items, and waits for the other call.
func TestItemsAreReservedAhead(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{1, 10} {
		b := budget.New(budget.Options{Limit: 64 << 20, InUse: func() (live, held int64) { return 0, 0 }})
		memory, other := new(budget.Reservation), new(budget.Reservation)
		memory.Open(b, nil, budget.Known, "caller")
		other.Open(b, nil, budget.Known, "caller")
		store := &recordingStore{onItem: func(id int64) {
			if id == at {
				for bytes := b.CallerShare(budget.Known); bytes > 0; bytes /= 2 {
					_ = other.Grow(budget.Connection, bytes)
				}
				time.AfterFunc(10*time.Millisecond, other.Release)
			}
		}}
		items := make([]*userv1.GetUserRequest, 20)
		for i := range items {
			items[i] = &userv1.GetUserRequest{UserId: int64(i + 1), Fields: []string{strings.Repeat("x", 30_000+10*i)}}
		}
		got := receiveItems(t, memory, store, 10_000, openFeed(t, store), items...)
		if got.err != nil || len(got.indexes) != 20 || int64(store.batches[0]) < at {
			t.Errorf("Receive(20 items) without memory from item %d on = %d results in batches of %v, %v, want all, the first batch with that item",
				at, len(got.indexes), store.batches, got.err)
		}
	}
}
