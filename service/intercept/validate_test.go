package intercept_test

import (
	"context"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

func TestItemReportsFieldAndRule(t *testing.T) {
	validator, err := intercept.NewValidator(userv1.File_user_v1_user_service_proto)
	if err != nil {
		t.Fatal(err)
	}
	check := intercept.Item(validator)
	if err := check(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Email: "ada@example.com"}}); err != nil {
		t.Errorf("partial update: error = %v, want nil", err)
	}
	err = check(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{
		Tags:     []string{"a", "b", strings.Repeat("c", 65)},
		Metadata: map[string]string{"k": strings.Repeat("v", 1025)},
	}})
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.InvalidField {
		t.Fatalf("error = %v", err)
	}
	type place struct{ Field, Rule string }
	var got []place
	for _, v := range e.Violations {
		if v.Message == "" {
			t.Errorf("%s: no message", v.Field)
		}
		got = append(got, place{v.Field, v.Rule})
	}
	want := []place{{"user.tags[2]", "string.max_len"}, {`user.metadata["k"]`, "string.max_bytes"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, ok := user.AsError(check("text")); ok {
		t.Error("Item() of a non-message is a *user.Error")
	}
}

// Validate checks the request of a server stream, not the items of other streams.
func TestStreamValidation(t *testing.T) {
	validator, err := intercept.NewValidator(userv1.File_user_v1_user_service_proto)
	if err != nil {
		t.Fatal(err)
	}
	for kind, refused := range map[connect.StreamType]bool{
		connect.StreamTypeServer: true, connect.StreamTypeClient: false, connect.StreamTypeBidi: false,
	} {
		c := newConn(kind, func(message any) error {
			if m, ok := message.(*userv1.GetUserRequest); ok {
				m.UserId = -1
			}
			return nil
		})
		err := intercept.NewValidate(validator).WrapStreamingHandler(
			func(_ context.Context, conn connect.StreamingHandlerConn) error {
				return conn.Receive(&userv1.GetUserRequest{})
			})(t.Context(), c)
		if user.HasReason(err, user.InvalidField) != refused {
			t.Errorf("%v: error = %v", kind, err)
		}
	}
}

// panicking is a validator that panics.
type panicking struct{}

func (panicking) Validate(proto.Message, ...protovalidate.ValidationOption) error { panic("planted") }

// Stream validation runs on another goroutine, where an unrecovered panic would end the
// process.
func TestValidatorPanicIsAnError(t *testing.T) {
	c := newConn(connect.StreamTypeServer, func(any) error { return nil })
	err := intercept.NewValidate(panicking{}).WrapStreamingHandler(
		func(_ context.Context, conn connect.StreamingHandlerConn) error {
			return conn.Receive(&userv1.GetUserRequest{})
		})(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "planted") {
		t.Errorf("error = %v", err)
	}
	if res, expected := intercept.ToConnect(err); expected || strings.Contains(res.Error(), "planted") {
		t.Errorf("error for the caller = %v", res)
	}
}

func TestLargeRequestReportsOneViolation(t *testing.T) {
	validator, err := intercept.NewValidator(userv1.File_user_v1_user_service_proto)
	if err != nil {
		t.Fatal(err)
	}
	check := intercept.Item(validator)
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
