package encoding

import "github.com/yourorg/userservice/service/user"

// columns are the stored fields of a user.
var columns = Fields(0)

// Fields returns the stored fields of a user that are not in a set.
func Fields(except user.FieldSet) (stored []*user.Field) {
	for i := range user.Fields() {
		if f := &user.Fields()[i]; !f.Computed() && !except.Has(f) {
			stored = append(stored, f)
		}
	}
	return stored
}
