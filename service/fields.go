package service

import (
	"fmt"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// parseFields parses the names in a field filter. Each unknown name is a violation. No names select
// all fields.
func parseFields(names []string) (set user.FieldSet, err error) {
	if len(names) == 0 {
		return user.APIFields(), nil
	}
	var violations []user.Violation
	for i, name := range names {
		f := user.FindField(name)
		if f == nil {
			violations = append(violations, user.Violation{
				Field:   fmt.Sprintf("fields[%d]", i),
				Message: "must be one of " + strings.Join(user.APIFields().Names(), ", "),
			})
			continue
		}
		set = set.With(f)
	}
	if violations != nil {
		return 0, user.NewInvalidError(violations...)
	}
	return set, nil
}
