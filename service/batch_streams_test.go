package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

func item(name string, policy ...userv1.ConflictPolicy) *userv1.BatchCreateUsersRequest {
	out := &userv1.BatchCreateUsersRequest{User: newUser(name)}
	if len(policy) > 0 {
		out.ConflictPolicy = policy[0]
	}
	return out
}

// importAll sends the items and closes the stream.
func importAll(t testing.TB, r *rig, items ...*userv1.BatchCreateUsersRequest) (*userv1.BatchCreateUsersResponse, error) {
	t.Helper()
	stream, err := r.client(t).BatchCreateUsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if err := stream.Send(item); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
	}
	return stream.CloseAndReceive()
}

func updateAll(t testing.TB, r *rig, items ...*userv1.UpdateUserRequest) (*userv1.BatchUpdateUsersResponse, error) {
	t.Helper()
	stream, err := r.client(t).BatchUpdateUsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if err := stream.Send(item); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
	}
	return stream.CloseAndReceive()
}

func TestBatchCreateUsers(t *testing.T) {
	r := newRig(t)
	ann := r.create(t, "Ann").GetUserId()
	checked := item("Fay")
	checked.User.ValidateOnly = true
	repeated := item("Eve")
	repeated.User.RequestId = someID
	res, err := importAll(t, r,
		item("Bob"),
		item("ann"),
		item("ann", userv1.ConflictPolicy_CONFLICT_POLICY_SKIP),
		&userv1.BatchCreateUsersRequest{
			User:           &userv1.CreateUserRequest{Username: "ANN", Email: "new@example.org"},
			ConflictPolicy: userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE,
		},
		&userv1.BatchCreateUsersRequest{},
		item("x\x00y"),
		item("Cem", 9),
		checked,
		repeated,
		repeated,
	)
	if err != nil {
		t.Fatal(err)
	}
	results := res.GetResults()
	var outcomes []userv1.ItemOutcome
	for _, result := range results {
		outcomes = append(outcomes, result.GetOutcome())
	}
	want := []userv1.ItemOutcome{created, failed, unchanged, updated, failed, failed, failed, valid, created, created}
	if !slices.Equal(outcomes, want) {
		t.Fatalf("outcomes = %v, want %v", outcomes, want)
	}
	if results[2].GetUserId() != ann || results[3].GetUserId() != ann || results[7].GetUserId() != 0 ||
		results[8].GetUserId() != results[9].GetUserId() || results[8].GetUserId() == 0 {
		t.Errorf("response = %v", results)
	}
	if res.GetCreatedCount() != 3 || res.GetUpdatedCount() != 1 || res.GetUnchangedCount() != 1 || res.GetFailedCount() != 4 {
		t.Errorf("response = %v", res)
	}
	var failures []string
	for _, f := range res.GetFailures() {
		failures = append(failures, fmt.Sprint(f.GetIndex(), " ", f.GetReason(), " ", strings.Join(violated(f), " ")))
	}
	if want := []string{
		"1 USERNAME_TAKEN ", "4 INVALID_FIELD user", "5 INVALID_FIELD user.username user.email", "6 INVALID_FIELD conflict_policy",
	}; !slices.Equal(failures, want) {
		t.Errorf("failures = %q, want %q", failures, want)
	}
}

func TestBatchUpdateUsers(t *testing.T) {
	r := newRig(t)
	ann, bob := r.create(t, "Ann"), r.create(t, "Bob")
	res, err := updateAll(t, r,
		&userv1.UpdateUserRequest{UserId: ann.GetUserId(), User: &userv1.User{Tags: []string{"vip"}}},
		&userv1.UpdateUserRequest{UserId: ann.GetUserId(), User: &userv1.User{Tags: []string{"vip"}}},
		&userv1.UpdateUserRequest{UserId: bob.GetUserId(), User: &userv1.User{Username: "ann"}},
		&userv1.UpdateUserRequest{UserId: 7, User: &userv1.User{}},
		&userv1.UpdateUserRequest{UserId: ann.GetUserId(), Etag: ann.GetEtag(), User: &userv1.User{Username: "Anna"}},
		&userv1.UpdateUserRequest{},
	)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetUpdatedCount() != 2 || res.GetFailedCount() != 4 {
		t.Errorf("response = %v", res)
	}
	want := []string{
		"item 2: username already taken",
		"item 3: user not found",
		"item 4: user was modified concurrently, read it again and retry",
		"item 5: invalid request: user_id: must be greater than 0; user: value is required",
	}
	if !slices.Equal(res.GetErrors(), want) {
		t.Errorf("result = %q", res.GetErrors())
	}
	failures := res.GetFailures()
	if len(failures) != 4 || failures[0].GetUserId() != bob.GetUserId() || failures[2].GetMetadata()["changed_fields"] != "tags" ||
		failures[3].GetReason() != userv1.ErrorReason_INVALID_FIELD {
		t.Errorf("failure = %v", failures)
	}
}

// Items of several chunks keep their index and order.
func TestBatchesAreAppliedInOrder(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "Ann").GetUserId()
	const n = 2345
	items := make([]*userv1.UpdateUserRequest, n)
	for i := range items {
		items[i] = &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Tags: []string{fmt.Sprint(i)}}}
		if i%100 == 50 {
			items[i].UserId = int64(i)
		}
	}
	res, err := updateAll(t, r, items...)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetUpdatedCount() != n-23 || res.GetFailedCount() != 23 || len(res.GetErrors()) != 23 {
		t.Errorf("response = %d updated, %d failed, %d errors", res.GetUpdatedCount(), res.GetFailedCount(), len(res.GetErrors()))
	}
	for _, f := range res.GetFailures() {
		if f.GetIndex()%100 != 50 || f.GetUserId() != f.GetIndex() {
			t.Errorf("failure = %v", f)
		}
	}
	got, err := r.GetUser(t.Context(), &userv1.GetUserRequest{UserId: id})
	if err != nil || got.GetUser().GetVersion() != n-23+1 || got.GetUser().GetTags()[0] != fmt.Sprint(n-1) {
		t.Errorf("response = %v, %v", got, err)
	}
}

func TestFailuresAreListedUpToLimit(t *testing.T) {
	r := newRig(t)
	items := make([]*userv1.UpdateUserRequest, 1300)
	for i := range items {
		items[i] = &userv1.UpdateUserRequest{UserId: 7, User: &userv1.User{}}
	}
	res, err := updateAll(t, r, items...)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetFailedCount() != 1300 || len(res.GetErrors()) != 1000 || len(res.GetFailures()) != 1000 || res.GetUpdatedCount() != 0 {
		t.Errorf("response = %d failed, %d errors, %d failures", res.GetFailedCount(), len(res.GetErrors()), len(res.GetFailures()))
	}
}

func TestFailuresFitMessageLimit(t *testing.T) {
	const limit = 600 << 10
	r := newRig(t, func(o *service.Options) { o.MaxMessageBytes = limit })
	items := make([]*userv1.UpdateUserRequest, 1000)
	for i := range items {
		items[i] = &userv1.UpdateUserRequest{UserId: 7, User: &userv1.User{Tags: make([]string, 16)}}
	}
	res, err := updateAll(t, r, items...)
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(res); size > limit || len(res.GetFailures()) != 1000 || len(res.GetErrors()) != 1000 {
		t.Errorf("response = %d failures in %d bytes", len(res.GetFailures()), size)
	}
	if f := res.GetFailures()[999]; f.GetReason() != userv1.ErrorReason_INVALID_FIELD || res.GetErrors()[999] != "item 999: invalid request" {
		t.Errorf("last failure = %v, %q", f, res.GetErrors()[999])
	}
}

func TestTooManyItemsInStream(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.MaxStreamItems = 700 })
	items := make([]*userv1.BatchCreateUsersRequest, 701)
	for i := range items {
		items[i] = item(fmt.Sprint("user ", i))
	}
	_, err := importAll(t, r, items...)
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("error = %v", err)
	}
	// One full chunk was submitted before the limit was exceeded.
	if got := r.feed.Head().Position; got != 500 {
		t.Errorf("%d items applied, want 500", got)
	}
	res, err := importAll(t, newRig(t, func(o *service.Options) { o.MaxStreamItems = 700 }), items[:700]...)
	if err != nil || res.GetCreatedCount() != 700 || len(res.GetResults()) != 700 {
		t.Errorf("at the limit: %d created, %v, want all", res.GetCreatedCount(), err)
	}
}

func TestEmptyStream(t *testing.T) {
	r := newRig(t)
	if res, err := importAll(t, r); err != nil || !proto.Equal(res, &userv1.BatchCreateUsersResponse{}) {
		t.Errorf("import = %v, %v", res, err)
	}
	if res, err := updateAll(t, r); err != nil || !proto.Equal(res, &userv1.BatchUpdateUsersResponse{}) {
		t.Errorf("update = %v, %v", res, err)
	}
}

func TestDrainEndsClientStream(t *testing.T) {
	r := newRig(t)
	r.feed.Drain()
	_, err := importAll(t, r, item("Bob"))
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("error = %v", err)
	}
	if r.feed.Head().Position != 0 {
		t.Error("an item was stored, want none")
	}
}

func TestStoreFailureEndsClientStream(t *testing.T) {
	base := newRig(t)
	var calls atomic.Int32
	r := newRigOver(t, spyStore{Store: base.store, batches: func(user.Batch) ([]user.Result, error, bool) {
		return nil, user.NewStoreReadOnlyError(), calls.Add(1) == 2
	}}, base.clock)
	items := make([]*userv1.BatchCreateUsersRequest, 1200)
	for i := range items {
		items[i] = item(fmt.Sprint("user ", i))
	}
	_, err := importAll(t, r, items...)
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("error = %v", err)
	}
}

func TestCanceledImportAppliesPrefixOfItems(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.client(t).BatchCreateUsers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 700 {
		if err := stream.Send(item(fmt.Sprint("user ", i))); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if _, err := stream.CloseAndReceive(); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("error = %v", err)
	}
	// The server may have committed any prefix of the first chunk.
	if _, err := r.CreateUser(t.Context(), newUser("last")); err != nil {
		t.Fatal(err)
	}
	res, err := r.ListUsers(t.Context(), &userv1.ListUsersRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]string{}
	for _, u := range res.GetUsers() {
		stored[u.GetUsername()] = u.GetEmail()
	}
	delete(stored, "last")
	if len(stored) > 500 {
		t.Errorf("%d items stored, want at most the chunk of 500", len(stored))
	}
	for i := range len(stored) {
		want := newUser(fmt.Sprint("user ", i))
		if got := stored[want.GetUsername()]; got != want.GetEmail() {
			t.Errorf("item %d of %d: email = %q, want %q", i, len(stored), got, want.GetEmail())
		}
	}
}

func BenchmarkBatchCreateUsers(b *testing.B) {
	r := newRig(b)
	stream, err := r.client(b).BatchCreateUsers(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	n := 0
	for b.Loop() {
		if n++; n%50_000 == 0 {
			if _, err := stream.CloseAndReceive(); err != nil {
				b.Fatal(err)
			}
			if stream, err = r.client(b).BatchCreateUsers(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		if err := stream.Send(item(fmt.Sprint("user ", n))); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := stream.CloseAndReceive(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "items/s")
}
