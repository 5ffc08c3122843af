package encoding

import (
	"time"

	"github.com/yourorg/userservice/service/user"
)

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

// SetColumn sets a stored field of a user from the value of its column: int64, string, []byte or nil.
func SetColumn(f *user.Field, u *user.User, v any) (err error) {
	number, isSet := v.(int64)
	encoded, _ := v.([]byte)
	switch {
	case f.Int != nil:
		*f.Int(u) = number
	case f.Text != nil:
		*f.Text(u), _ = v.(string)
	case f.Status != nil:
		*f.Status(u) = user.Status(number)
	case f.List != nil:
		*f.List(u), err = DecodeList(encoded)
	case f.Map != nil:
		*f.Map(u), err = DecodeMap(encoded)
	case isSet:
		*f.Time(u) = FromMicros(number)
	default:
		*f.Time(u) = time.Time{}
	}
	return err
}
