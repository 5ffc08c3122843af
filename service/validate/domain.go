package validate

import (
	"slices"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// addDomainViolations adds violations of domain rules to violations of proto rules, so that the response
// lists them all. It is called only for requests that are already invalid.
func addDomainViolations(violations []user.Violation, message proto.Message) []user.Violation {
	var names []normalizedField
	switch request := message.(type) {
	case *userv1.CreateUserRequest:
		names = normalizedFields("", request)
	case *userv1.BatchCreateUsersRequest:
		names = normalizedFields("user.", request.GetUser())
	case *userv1.UpdateUserRequest:
		names = normalizedFields("user.", request.GetUser())
	}
	for _, n := range names {
		reported := func(v user.Violation) bool { return v.Field == n.field }
		if n.value == "" || slices.ContainsFunc(violations, reported) {
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

type normalizedField struct {
	field, value string
	key          func(string) (string, *user.Error)
}

func normalizedFields(prefix string, m interface {
	GetUsername() string
	GetEmail() string
}) []normalizedField {
	return []normalizedField{
		{prefix + "username", m.GetUsername(), user.UsernameKey},
		{prefix + "email", m.GetEmail(), user.EmailKey},
	}
}
