package intercept

import (
	"slices"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// complete adds to the fields that break a rule of the proto those that the domain
// would refuse afterwards, so that a caller mends them all at once. It only runs
// for requests that are refused anyway.
func complete(violations []user.Violation, message proto.Message) []user.Violation {
	var names []named
	switch request := message.(type) {
	case *userv1.CreateUserRequest:
		names = namesOf("", request)
	case *userv1.BatchCreateUsersRequest:
		names = namesOf("user.", request.GetUser())
	case *userv1.UpdateUserRequest:
		names = namesOf("user.", request.GetUser())
	}
	for _, n := range names {
		known := func(v user.Violation) bool { return v.Field == n.field }
		if n.value == "" || slices.ContainsFunc(violations, known) {
			continue
		}
		if _, err := n.key(n.value); err != nil {
			v := err.Violations[0]
			v.Field = n.field
			violations = append(violations, v)
		}
	}
	return violations
}

// named is a field that has a normal form, which not every value has.
type named struct {
	field, value string
	key          func(string) (string, *user.Error)
}

func namesOf(prefix string, m interface {
	GetUsername() string
	GetEmail() string
}) []named {
	return []named{
		{prefix + "username", m.GetUsername(), user.UsernameKey},
		{prefix + "email", m.GetEmail(), user.EmailKey},
	}
}
