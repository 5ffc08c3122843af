package client

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// span is the time in which a chunk was sent.
type span struct{ start, end time.Time }

func (s span) overlaps(other span) bool {
	return s.start.Before(other.end) && other.start.Before(s.end)
}

// spansOf sends items in a bubble, in which each chunk takes a second, and returns the span of each chunk by its first
// item, and checks that results are reported in order.
func spansOf[T comparable](t *testing.T, items []T, concerns func(T) []concern) (spans []span) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		at := make(map[T]span)
		b := batch[T]{
			identify: func(item T) T { return item },
			concerns: concerns,
			send: func(_ context.Context, chunk []T) ([]ItemResult, error) {
				s := span{start: time.Now()}
				time.Sleep(time.Second)
				s.end = time.Now()
				mu.Lock()
				defer mu.Unlock()
				at[chunk[0]] = s
				return make([]ItemResult, len(chunk)), nil
			},
		}
		next := int64(0)
		b.report = func(r ItemResult) error {
			if r.Index != next {
				t.Errorf("result %d has index %d", next, r.Index)
			}
			next++
			return nil
		}
		if _, err := b.run(t.Context(), iter.Seq[T](func(yield func(T) bool) {
			for _, item := range items {
				if !yield(item) {
					return
				}
			}
		})); err != nil || next != int64(len(items)) {
			t.Errorf("run() = %v with %d results, want %d", err, next, len(items))
		}
		for i := 0; i < len(items); i += chunkItems {
			spans = append(spans, at[items[i]])
		}
	})
	return spans
}

// Chunks are sent at the same time unless they concern the same user or name. The same check finds a planted fault.
func TestDependentChunksAreSentInTurn(t *testing.T) {
	const second, third = chunkItems, 2 * chunkItems
	mask := func(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
	update := func(change map[int]*userv1.UpdateUserRequest) []*userv1.UpdateUserRequest {
		items := make([]*userv1.UpdateUserRequest, 3*chunkItems)
		for i := range items {
			items[i] = &userv1.UpdateUserRequest{UserId: int64(i + 1), User: &userv1.User{Tags: []string{"x"}}}
			if special := change[i]; special != nil {
				items[i] = special
			}
		}
		return items
	}
	named := &userv1.User{Username: "Ada"}
	for _, c := range []struct {
		name  string
		items []*userv1.UpdateUserRequest
		want  [3]bool // whether the chunks 1 and 2, 2 and 3, 1 and 3 overlap
	}{
		{"other users", update(nil), [3]bool{true, true, true}},
		{"the same user", update(map[int]*userv1.UpdateUserRequest{second: {UserId: 1}}), [3]bool{false, true, false}},
		{"one name", update(map[int]*userv1.UpdateUserRequest{0: {UserId: 1, User: named}}), [3]bool{true, true, true}},
		{"two names", update(map[int]*userv1.UpdateUserRequest{5: {UserId: 6, User: named}, third + 3: {UserId: 7, User: &userv1.User{Email: "a@b"}}}),
			[3]bool{true, false, false}},
		{"masks", update(map[int]*userv1.UpdateUserRequest{0: {UserId: 1, UpdateMask: mask("tags", "email")}, second: {UserId: 2, UpdateMask: mask("username")}}),
			[3]bool{false, true, false}},
		{"masks without names", update(map[int]*userv1.UpdateUserRequest{0: {UserId: 1, User: named, UpdateMask: mask("tags")}, second: {User: named}}),
			[3]bool{true, true, true}},
	} {
		if got := overlaps(spansOf(t, c.items, updateConcerns)); got != c.want {
			t.Errorf("%s: overlaps = %v, want %v", c.name, got, c.want)
		}
	}
	planted := update(map[int]*userv1.UpdateUserRequest{second: {UserId: 1}})
	if got := overlaps(spansOf(t, planted, func(*userv1.UpdateUserRequest) []concern { return nil })); !got[0] {
		t.Error("a missing concern is not found")
	}
}

func TestDependentCreatesAreSentInTurn(t *testing.T) {
	create := func(policy userv1.ConflictPolicy, change map[int]*userv1.CreateUserRequest) []*userv1.BatchCreateUsersRequest {
		items := make([]*userv1.BatchCreateUsersRequest, 3*chunkItems)
		for i := range items {
			u := change[i]
			if u == nil {
				u = &userv1.CreateUserRequest{Username: fmt.Sprint("user ", i), Email: fmt.Sprintf("user%d@example.org", i)}
			}
			items[i] = &userv1.BatchCreateUsersRequest{User: u, ConflictPolicy: policy}
		}
		return items
	}
	const skip, update = userv1.ConflictPolicy_CONFLICT_POLICY_SKIP, userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE
	for _, c := range []struct {
		name  string
		items []*userv1.BatchCreateUsersRequest
		want  [3]bool
	}{
		{"other users", create(skip, nil), [3]bool{true, true, true}},
		{"the same username", create(skip, map[int]*userv1.CreateUserRequest{chunkItems: {Username: "USER 3"}}), [3]bool{false, true, false}},
		{"the same e-mail address", create(skip, map[int]*userv1.CreateUserRequest{3*chunkItems - 1: {Email: " user3@EXAMPLE.org"}}), [3]bool{true, false, false}},
		{"invalid names", create(skip, map[int]*userv1.CreateUserRequest{0: {}, chunkItems: {}, 2 * chunkItems: nil}), [3]bool{true, true, true}},
		{"updates of users with the names", create(update, nil), [3]bool{false, false, false}},
	} {
		if got := overlaps(spansOf(t, c.items, createConcerns)); got != c.want {
			t.Errorf("%s: overlaps = %v, want %v", c.name, got, c.want)
		}
	}
}

func overlaps(s []span) [3]bool {
	return [3]bool{s[0].overlaps(s[1]), s[1].overlaps(s[2]), s[0].overlaps(s[2])}
}

// At most three chunks are in flight.
func TestChunksInFlightAreLimited(t *testing.T) {
	items := make([]*userv1.UpdateUserRequest, 7*chunkItems)
	for i := range items {
		items[i] = &userv1.UpdateUserRequest{UserId: int64(i + 1)}
	}
	spans := spansOf(t, items, updateConcerns)
	for i, s := range spans {
		together := 0
		for _, other := range spans {
			if s.overlaps(other) {
				together++
			}
		}
		if together > chunksInFlight {
			t.Errorf("chunk %d is sent together with %d chunks, want at most %d in flight", i, together-1, chunksInFlight)
		}
	}
}
