package validate_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

func TestProtoAndDomainViolationsAreReportedTogether(t *testing.T) {
	check := newValidator(t).Validate
	for name, c := range map[string]struct {
		request proto.Message
		fields  []string
	}{
		"a rule and the domain": {&userv1.CreateUserRequest{Username: "al", Email: "nobody"}, []string{"username", "email"}},
		"rules alone":           {&userv1.CreateUserRequest{Username: "al", Email: "a"}, []string{"username", "email"}},
		"in an import": {&userv1.BatchCreateUsersRequest{
			User: &userv1.CreateUserRequest{Username: "\u0000\u0000\u0000", Email: "a@example.org", Tags: []string{""}},
		}, []string{"user.tags[0]", "user.username"}},
		"in an update": {&userv1.UpdateUserRequest{User: &userv1.User{Email: "nobody"}}, []string{"user_id", "user.email"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := user.AsError(check(c.request))
			if !ok || len(e.Violations) != len(c.fields) {
				t.Fatalf("got %v, want violations of %q", e, c.fields)
			}
			for i, v := range e.Violations {
				if v.Field != c.fields[i] || v.Message == "" {
					t.Errorf("violation %d = %+v, want field %s", i, v, c.fields[i])
				}
			}
		})
	}
}
