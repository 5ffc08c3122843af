package validate_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
	"github.com/yourorg/userservice/service/validate"
)

func newValidator(t testing.TB) *validate.Validator {
	t.Helper()
	v, err := validate.New(userv1.File_user_v1_user_service_proto)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestViolationsHaveFieldAndRule(t *testing.T) {
	check := newValidator(t).Validate
	if err := check(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Email: "ada@example.com"}}); err != nil {
		t.Errorf("partial update: error = %v, want nil", err)
	}
	err := check(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{
		Tags:     []string{"a", "b", strings.Repeat("c", 65)},
		Metadata: map[string]string{"k": strings.Repeat("v", 1025)},
	}})
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.InvalidField {
		t.Fatalf("error = %v", err)
	}
	type violation struct{ Field, Rule string }
	var got []violation
	for _, v := range e.Violations {
		if v.Message == "" {
			t.Errorf("%s: no message", v.Field)
		}
		got = append(got, violation{v.Field, v.Rule})
	}
	want := []violation{{"user.tags[2]", "string.max_len"}, {`user.metadata["k"]`, "string.max_bytes"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if e, ok := user.AsError(check((*userv1.UpdateUserRequest)(nil))); !ok || len(e.Violations) != 1 {
		t.Errorf("Validate(nil) = %v, want one violation", e)
	}
}

func TestLargeRequestReportsOneViolation(t *testing.T) {
	check := newValidator(t).Validate
	for n, want := range map[int]int{2: 3, 100: 101, 10_000: 1, 100_000: 1} { // two equal ids are another violation
		err := check(&userv1.WatchUserStatusRequest{UserIds: make([]int64, n)})
		invalid, ok := user.AsError(err)
		if !ok || invalid.Reason != user.InvalidField || len(invalid.Violations) != want || !strings.HasPrefix(invalid.Violations[0].Field, "user_ids") {
			t.Errorf("%d bad ids: %v, want %d violations", n, err, want)
		}
	}
	request := &userv1.WatchUserStatusRequest{UserIds: make([]int64, 10_000)}
	if allocs := testing.AllocsPerRun(5, func() { _ = check(request) }); allocs > 200 {
		t.Errorf("%v allocations for 10,000 bad ids, want few", allocs)
	}
}
