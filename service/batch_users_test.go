package service_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

const (
	created   = userv1.ItemOutcome_ITEM_OUTCOME_CREATED
	updated   = userv1.ItemOutcome_ITEM_OUTCOME_UPDATED
	unchanged = userv1.ItemOutcome_ITEM_OUTCOME_UNCHANGED
	failed    = userv1.ItemOutcome_ITEM_OUTCOME_FAILED
	valid     = userv1.ItemOutcome_ITEM_OUTCOME_VALID
)

func newUser(name string) *userv1.CreateUserRequest {
	return &userv1.CreateUserRequest{Username: name, Email: strings.ReplaceAll(name, " ", ".") + "@example.org"}
}

func outcomesOf(results []*userv1.UserResult) []userv1.ItemOutcome {
	outcomes := make([]userv1.ItemOutcome, len(results))
	for i, result := range results {
		outcomes[i] = result.GetOutcome()
	}
	return outcomes
}

func TestCreateUsersAppliesItemsIndependently(t *testing.T) {
	r := newRig(t)
	r.create(t, "Ann")
	checked := newUser("Cem")
	checked.ValidateOnly = true
	badTags := newUser("Dan")
	badTags.Tags = []string{"x", "", "x"}
	res, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{Requests: []*userv1.CreateUserRequest{
		newUser("Bob"), newUser("ann"), {Username: "x"}, checked, badTags, newUser("bob"), newUser("Eve"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	results := res.GetResults()
	if got := outcomesOf(results); !slices.Equal(got, []userv1.ItemOutcome{created, failed, failed, valid, failed, failed, created}) {
		t.Fatalf("response = %v", got)
	}
	if results[0].GetUser().GetUserId() == 0 || results[0].GetUser().GetUsername() != "Bob" || results[0].GetFailure() != nil {
		t.Errorf("created: result = %v", results[0])
	}
	if u := results[3].GetUser(); u.GetUserId() != 0 || u.GetEtag() != "" || u.GetUsername() != "Cem" {
		t.Errorf("validate_only: user = %v", u)
	}
	taken := results[1].GetFailure()
	if taken.GetIndex() != 1 || taken.GetCode() != code.Code_ALREADY_EXISTS || taken.GetReason() != userv1.ErrorReason_USERNAME_TAKEN ||
		taken.GetMetadata()["holder_deleted"] != "false" || taken.GetMessage() != "username already taken" || results[1].GetUser() != nil {
		t.Errorf("taken username: result = %v", results[1])
	}
	if got := violated(results[2].GetFailure()); !slices.Equal(got, []string{"username", "email"}) {
		t.Errorf("proto rules: result = %v", results[2])
	}
	if got := violated(results[4].GetFailure()); !slices.Equal(got, []string{"tags", "tags[1]"}) {
		t.Errorf("tag rules: violations = %v", got)
	}
}

func violated(f *userv1.ItemFailure) []string {
	fields := make([]string, 0, len(f.GetFieldViolations()))
	for _, v := range f.GetFieldViolations() {
		fields = append(fields, v.GetField())
	}
	return fields
}

func TestCreateUsersConflictPolicies(t *testing.T) {
	for _, test := range []struct {
		policy userv1.ConflictPolicy
		want   userv1.ItemOutcome
		email  string
	}{
		{userv1.ConflictPolicy_CONFLICT_POLICY_UNSPECIFIED, failed, ""},
		{userv1.ConflictPolicy_CONFLICT_POLICY_FAIL, failed, ""},
		{userv1.ConflictPolicy_CONFLICT_POLICY_SKIP, unchanged, "Ann@example.org"},
		{userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE, updated, "new@example.org"},
	} {
		t.Run(test.policy.String(), func(t *testing.T) {
			r := newRig(t)
			id := r.create(t, "Ann").GetUserId()
			res, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{
				ConflictPolicy: test.policy,
				Requests:       []*userv1.CreateUserRequest{{Username: "ann", Email: "new@example.org"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			got := res.GetResults()[0]
			if got.GetOutcome() != test.want || got.GetUser().GetEmail() != test.email ||
				(test.want != failed && got.GetUser().GetUserId() != id) {
				t.Errorf("response = %v", got)
			}
		})
	}
}

func TestCreateUsersAtomic(t *testing.T) {
	r := newRig(t)
	r.create(t, "Ann")
	head := r.feed.Head()
	_, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{Atomic: true, Requests: []*userv1.CreateUserRequest{
		newUser("Bob"), {Username: "x", Email: "x@example.org"}, newUser("Cem"), {Username: "a\x00b", Email: "nobody"},
	}})
	wantInvalid(t, err, "requests[1].username", "requests[3].username", "requests[3].email")
	_, err = r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{Atomic: true, Requests: []*userv1.CreateUserRequest{
		newUser("Bob"), newUser("Cem"), newUser("ann"), newUser("bob"),
	}})
	if e := wantReason(t, err, user.UsernameTaken); !strings.HasPrefix(e.Message, "item 2: ") || e.Code != user.AlreadyExists {
		t.Errorf("error = %v", e)
	}
	if r.feed.Head() != head {
		t.Error("an item was stored, want none")
	}
	res, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{Atomic: true, Requests: []*userv1.CreateUserRequest{
		newUser("Bob"), newUser("Cem"),
	}})
	if err != nil || !slices.Equal(outcomesOf(res.GetResults()), []userv1.ItemOutcome{created, created}) {
		t.Errorf("response = %v, %v", res, err)
	}
}

func TestAtomicViolationsAreBounded(t *testing.T) {
	r := newRig(t)
	req := &userv1.CreateUsersRequest{Atomic: true}
	for range 300 {
		req.Requests = append(req.Requests, &userv1.CreateUserRequest{})
	}
	_, err := r.CreateUsers(t.Context(), req)
	e := wantReason(t, err, user.InvalidField)
	if len(e.Violations) != 100 || !strings.Contains(e.Message, "100 of 600") {
		t.Errorf("error has %d violations: %s", len(e.Violations), e.Message)
	}
}

func TestUpdateUsersAppliesItemsIndependently(t *testing.T) {
	r := newRig(t)
	ann, bob := r.create(t, "Ann"), r.create(t, "Bob")
	req := &userv1.UpdateUsersRequest{Requests: []*userv1.UpdateUserRequest{
		{UserId: ann.GetUserId(), User: &userv1.User{Username: "Anna"}},
		{UserId: bob.GetUserId(), User: &userv1.User{Username: "anna"}},
		{UserId: 7, User: &userv1.User{}},
		{UserId: bob.GetUserId()},
		{UserId: ann.GetUserId(), Etag: ann.GetEtag(), User: &userv1.User{Username: "Ann"}},
		{UserId: bob.GetUserId(), User: &userv1.User{Tags: []string{"vip"}}, RequestId: someID},
		{UserId: bob.GetUserId(), User: &userv1.User{Tags: []string{"vip"}}, RequestId: someID},
		{UserId: bob.GetUserId(), User: &userv1.User{Username: "Bob"}},
		{UserId: bob.GetUserId(), User: &userv1.User{Username: "Bob"}, RequestId: "no uuid"},
	}}
	res, err := r.UpdateUsers(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	results := res.GetResults()
	want := []userv1.ItemOutcome{updated, failed, failed, failed, failed, updated, updated, unchanged, failed}
	if got := outcomesOf(results); !slices.Equal(got, want) {
		t.Fatalf("outcomes = %v, want %v", got, want)
	}
	if f := results[2].GetFailure(); f.GetUserId() != 7 || f.GetReason() != userv1.ErrorReason_USER_NOT_FOUND || f.GetCode() != code.Code_NOT_FOUND {
		t.Errorf("unknown user: failure = %v", f)
	}
	if got := violated(results[3].GetFailure()); !slices.Equal(got, []string{"user"}) {
		t.Errorf("without user: result = %v", results[3])
	}
	if got := results[4].GetFailure().GetMetadata()["changed_fields"]; got != "username" {
		t.Errorf("outdated etag: result = %v", results[4])
	}
	if !proto.Equal(results[5].GetUser(), results[6].GetUser()) {
		t.Errorf("repeated request: results = %v, %v", results[5], results[6])
	}
	if got := violated(results[8].GetFailure()); !slices.Equal(got, []string{"request_id"}) {
		t.Errorf("invalid request id: result = %v", results[8])
	}
}

func TestUpdateUsersAtomic(t *testing.T) {
	r := newRig(t)
	ann, bob := r.create(t, "Ann"), r.create(t, "Bob")
	_, err := r.UpdateUsers(t.Context(), &userv1.UpdateUsersRequest{Atomic: true, Requests: []*userv1.UpdateUserRequest{
		{UserId: ann.GetUserId(), User: &userv1.User{Username: "Anna"}},
		{UserId: bob.GetUserId(), User: &userv1.User{Username: "anna"}},
	}})
	if e := wantReason(t, err, user.UsernameTaken); !strings.HasPrefix(e.Message, "item 1: ") {
		t.Errorf("error = %v", e)
	}
	got, err := r.GetUser(t.Context(), &userv1.GetUserRequest{UserId: ann.GetUserId()})
	if err != nil || got.GetUser().GetUsername() != "Ann" {
		t.Errorf("response = %v, %v", got, err)
	}
	_, err = r.UpdateUsers(t.Context(), &userv1.UpdateUsersRequest{Atomic: true, Requests: []*userv1.UpdateUserRequest{
		{UserId: ann.GetUserId(), User: &userv1.User{}}, {User: &userv1.User{UserId: 3}},
	}})
	wantInvalid(t, err, "requests[1].user_id")
	_, err = r.UpdateUsers(t.Context(), &userv1.UpdateUsersRequest{Atomic: true, Requests: []*userv1.UpdateUserRequest{
		{UserId: ann.GetUserId(), User: &userv1.User{UserId: 3}},
	}})
	wantInvalid(t, err, "requests[0].user.user_id")
	twice := []*userv1.UpdateUserRequest{
		{UserId: ann.GetUserId(), Etag: ann.GetEtag(), User: &userv1.User{Username: "Ann"}},
		{UserId: bob.GetUserId(), Etag: bob.GetEtag(), User: &userv1.User{}},
		{UserId: ann.GetUserId(), User: &userv1.User{Username: "Ann"}},
		{UserId: ann.GetUserId(), Etag: ann.GetEtag(), User: &userv1.User{}},
	}
	_, err = r.UpdateUsers(t.Context(), &userv1.UpdateUsersRequest{Atomic: true, Requests: twice})
	wantInvalid(t, err, "requests[3].etag")
	for _, req := range []*userv1.UpdateUsersRequest{{Requests: twice}, {Atomic: true, Requests: twice[:3]}} {
		res, err := r.UpdateUsers(t.Context(), req)
		if got := outcomesOf(res.GetResults()); err != nil || slices.Contains(got, failed) {
			t.Errorf("UpdateUsers(%v) = %v, %v, want success", req, got, err)
		}
	}
}

// Small updates of large users must not exceed the message limit of the response.
func TestUpdateUsersFitsMessageLimit(t *testing.T) {
	const limit = 20 << 10
	r := newRig(t, func(o *service.Options) { o.MaxMessageBytes = limit })
	req := new(userv1.UpdateUsersRequest)
	for i := range 40 {
		u := r.create(t, fmt.Sprintf("user %d", i), func(c *userv1.CreateUserRequest) {
			c.Email = fmt.Sprintf("u%d@example.org", i)
			c.Metadata = map[string]string{"note": strings.Repeat("x", 1000)}
		})
		req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: u.GetUserId(), User: &userv1.User{Tags: []string{"t"}}})
	}
	for range 20 {
		tags := make([]string, 64)
		req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: 7, User: &userv1.User{Tags: tags}})
	}
	res, err := r.UpdateUsers(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(res); size > limit {
		t.Errorf("response has %d bytes", size)
	}
	results := res.GetResults()
	if results[0].GetUser().GetMetadata() == nil {
		t.Error("first user is incomplete")
	}
	for i, result := range results[:40] {
		if u := result.GetUser(); u.GetUserId() != req.GetRequests()[i].GetUserId() || u.GetVersion() != 2 || u.GetEtag() == "" {
			t.Errorf("results[%d] = %v", i, result)
		}
	}
	for i, result := range results[40:] {
		if f := result.GetFailure(); f.GetReason() != userv1.ErrorReason_INVALID_FIELD || f.GetMessage() == "" {
			t.Errorf("results[%d] = %v", 40+i, result)
		}
	}
}

func TestUnexpectedItemErrorIsHidden(t *testing.T) {
	base := newRig(t)
	r := newRigOver(t, spyStore{Store: base.store, batches: func(user.Batch) ([]user.Result, error, bool) {
		return []user.Result{{Err: errors.New("secret of the store")}}, nil, true
	}}, base.clock)
	res, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{Requests: []*userv1.CreateUserRequest{newUser("Ann")}})
	if err != nil {
		t.Fatal(err)
	}
	f := res.GetResults()[0].GetFailure()
	if f.GetReason() != userv1.ErrorReason_INTERNAL || f.GetMetadata()["incident"] == "" || strings.Contains(f.String(), "secret") {
		t.Errorf("failure = %v", f)
	}
}

// An import with CONFLICT_POLICY_UPDATE keeps tags and metadata that the item does not set.
func TestImportKeepsUnsetFields(t *testing.T) {
	r := newRig(t)
	tags, metadata := []string{"vip"}, map[string]string{"team": "red"}
	created := r.create(t, "ann", func(req *userv1.CreateUserRequest) { req.Tags, req.Metadata = tags, metadata })
	update := userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE
	check := func(call string, got *userv1.User) {
		t.Helper()
		if !slices.Equal(got.GetTags(), tags) || !maps.Equal(got.GetMetadata(), metadata) {
			t.Errorf("%s: tags = %v, metadata = %v, want %v, %v", call, got.GetTags(), got.GetMetadata(), tags, metadata)
		}
	}
	res, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{ConflictPolicy: update, Requests: []*userv1.CreateUserRequest{
		{Username: "ANN", Email: "ann@example.net"},
	}})
	if err != nil || res.GetResults()[0].GetOutcome() != userv1.ItemOutcome_ITEM_OUTCOME_UPDATED {
		t.Fatalf("CreateUsers() = %v, %v, want an update", res, err)
	}
	check("CreateUsers", res.GetResults()[0].GetUser())
	imported, err := importAll(t, r, &userv1.BatchCreateUsersRequest{
		User: &userv1.CreateUserRequest{Username: "Ann", Email: "ann@example.org"}, ConflictPolicy: update,
	})
	if err != nil || imported.GetUpdatedCount() != 1 {
		t.Fatalf("BatchCreateUsers() = %v, %v, want an update", imported, err)
	}
	stored, err := r.GetUser(t.Context(), &userv1.GetUserRequest{UserId: created.GetUserId()})
	if err != nil {
		t.Fatal(err)
	}
	check("BatchCreateUsers", stored.GetUser())
}
