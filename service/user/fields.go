package user

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Field describes a field of User. Masks, field filters, log details, redaction, sizes and stores
// walk the table of fields, so that a field is described once. One of the accessors is set; a
// field without accessor is computed.
type Field struct {
	Name   string // in the proto
	Number int32  // in user.v1.User; from InternalNumber on: stored, but not part of user.v1.User

	Int    func(*User) *int64
	Text   func(*User) *string
	Status func(*User) *Status
	Time   func(*User) *time.Time
	List   func(*User) *[]string
	Map    func(*User) *map[string]string

	Writable   bool // clients may set it
	Required   bool // Writable, but it cannot be cleared
	Public     bool // its values in the log are not personal data
	Filterable bool // supported in a filter
	MaxBytes   int  // maximum size of a text, list or map, see User.Size

	json           string // JSON name
	oldKey, newKey string // in log details
	bit            FieldSet
}

// InternalNumber is the lowest number of an internal field.
const InternalNumber = 1000

// fields is the table of fields. It is immutable.
var fields = newTable([]Field{
	{Name: "user_id", Number: 1, Int: func(u *User) *int64 { return &u.ID }},
	{Name: "username", Number: 2, Text: func(u *User) *string { return &u.Username },
		Writable: true, Required: true, Filterable: true, MaxBytes: 4 * MaxUsername},
	{Name: "email", Number: 3, Text: func(u *User) *string { return &u.Email },
		Writable: true, Required: true, Filterable: true, MaxBytes: MaxEmail},
	{Name: "status", Number: 4, Status: func(u *User) *Status { return &u.Status },
		Writable: true, Public: true, Filterable: true},
	{Name: "created_at", Number: 5, Time: func(u *User) *time.Time { return &u.CreatedAt }, Filterable: true},
	{Name: "updated_at", Number: 6, Time: func(u *User) *time.Time { return &u.UpdatedAt }, Filterable: true},
	{Name: "tags", Number: 7, List: func(u *User) *[]string { return &u.Tags },
		Writable: true, Filterable: true, MaxBytes: MaxTags * (elementBytes + 4*MaxTag)},
	{Name: "metadata", Number: 8, Map: func(u *User) *map[string]string { return &u.Metadata },
		Writable: true, Filterable: true, MaxBytes: MaxMetadata * (2*elementBytes + 4*MaxMetadataKey + MaxMetadataValue)},
	{Name: "version", Number: 9, Int: func(u *User) *int64 { return &u.Version }},
	{Name: "etag", Number: 10},
	{Name: "deleted_at", Number: 11, Time: func(u *User) *time.Time { return &u.DeletedAt }, Public: true},
	{Name: "purge_at", Number: 12, Time: func(u *User) *time.Time { return &u.PurgeAt }, Public: true},
	{Name: "last_activity_id", Number: 13, Int: func(u *User) *int64 { return &u.LastActivityID }, Filterable: true},

	{Name: "status_time", Number: InternalNumber, Time: func(u *User) *time.Time { return &u.StatusTime }},
	{Name: "status_position", Number: InternalNumber + 1, Int: func(u *User) *int64 { return &u.StatusPosition }},
})

func newTable(table []Field) []Field {
	for i := range table {
		f := &table[i]
		f.bit = 1 << i
		f.oldKey, f.newKey = "old."+f.Name, "new."+f.Name
		for n, word := range strings.Split(f.Name, "_") {
			if n > 0 {
				word = strings.ToUpper(word[:1]) + word[1:]
			}
			f.json += word
		}
	}
	return table
}

// noUser is a user without values. It is immutable.
var noUser = new(User)

// Fields returns the table of fields, which must not be modified.
func Fields() []Field { return fields }

// FieldByName returns the field of user.v1.User with a name, or nil.
func FieldByName(name string) *Field {
	for i := range fields {
		if f := &fields[i]; f.Name == name && f.Number < InternalNumber {
			return f
		}
	}
	return nil
}

// FindField returns the field with a name or a JSON name, such as created_at or createdAt, or nil.
func FindField(name string) *Field {
	for i := range fields {
		if f := &fields[i]; f.json == name && f.Number < InternalNumber {
			return f
		}
	}
	return FieldByName(name)
}

// Computed reports whether the field is computed and not stored.
func (f *Field) Computed() bool {
	return f.Int == nil && f.Text == nil && f.Status == nil && f.Time == nil && f.List == nil && f.Map == nil
}

// Empty reports whether the field is unset or empty in u.
func (f *Field) Empty(u *User) bool { return f.equal(u, noUser) }

func (f *Field) equal(a, b *User) bool {
	switch {
	case f.Int != nil:
		return *f.Int(a) == *f.Int(b)
	case f.Text != nil:
		return *f.Text(a) == *f.Text(b)
	case f.Status != nil:
		return *f.Status(a) == *f.Status(b)
	case f.Time != nil:
		return f.Time(a).Equal(*f.Time(b))
	case f.List != nil:
		return slices.Equal(*f.List(a), *f.List(b))
	case f.Map != nil:
		return maps.Equal(*f.Map(a), *f.Map(b))
	}
	return true
}

// Copy copies the value of src to dst. Lists and maps are not shared.
func (f *Field) Copy(dst, src *User) {
	switch {
	case f.Int != nil:
		*f.Int(dst) = *f.Int(src)
	case f.Text != nil:
		*f.Text(dst) = *f.Text(src)
	case f.Status != nil:
		*f.Status(dst) = *f.Status(src)
	case f.Time != nil:
		*f.Time(dst) = *f.Time(src)
	case f.List != nil:
		*f.List(dst) = slices.Clone(*f.List(src))
	case f.Map != nil:
		*f.Map(dst) = maps.Clone(*f.Map(src))
	}
}

// A FieldSet is a set of fields.
type FieldSet uint64

// NewFieldSet returns the set of the fields with the given names. It panics if there is no such
// field.
func NewFieldSet(names ...string) (set FieldSet) {
	for _, name := range names {
		f := FieldByName(name)
		if f == nil {
			panic("unknown field " + name)
		}
		set = set.With(f)
	}
	return set
}

func fieldsWhere(match func(*Field) bool) (set FieldSet) {
	for i := range fields {
		if match(&fields[i]) {
			set = set.With(&fields[i])
		}
	}
	return set
}

// Sets of fields.
var (
	apiFields      = fieldsWhere(func(f *Field) bool { return f.Number < InternalNumber })
	writableFields = fieldsWhere(func(f *Field) bool { return f.Writable })
	filterable     = fieldsWhere(func(f *Field) bool { return f.Filterable })
	usernameField  = NewFieldSet("username")
	emailField     = NewFieldSet("email")
	statusField    = NewFieldSet("status")
	// profileFields are changed without a time, unlike the status.
	profileFields   = writableFields &^ statusField
	lifecycleFields = NewFieldSet("deleted_at", "purge_at")
	collections     = fieldsWhere(func(f *Field) bool { return f.List != nil || f.Map != nil })
)

// APIFields returns the fields of user.v1.User.
func APIFields() FieldSet { return apiFields }

// WritableFields returns the fields that clients may set.
func WritableFields() FieldSet { return writableFields }

// FilterableFields returns the fields supported in a filter.
func FilterableFields() FieldSet { return filterable }

// With returns the set with a field added.
func (s FieldSet) With(f *Field) FieldSet { return s | f.bit }

// Has reports whether the set contains a field.
func (s FieldSet) Has(f *Field) bool { return s&f.bit != 0 }

// Names returns the names of the fields in the order of the table.
func (s FieldSet) Names() (names []string) {
	for i := range fields {
		if s.Has(&fields[i]) {
			names = append(names, fields[i].Name)
		}
	}
	return names
}

// NonEmpty returns the fields that are not empty in u.
func (u *User) NonEmpty() FieldSet {
	return fieldsWhere(func(f *Field) bool { return !f.Empty(u) })
}

// Equal reports whether two users have equal values in the fields of a set.
func (u *User) Equal(other *User, set FieldSet) bool {
	for i := range fields {
		if f := &fields[i]; set.Has(f) && !f.equal(u, other) {
			return false
		}
	}
	return true
}

// Differing returns the fields of a set that differ from those of another user.
func (u *User) Differing(other *User, set FieldSet) FieldSet {
	return fieldsWhere(func(f *Field) bool { return set.Has(f) && !f.equal(u, other) })
}

// set copies the fields of a set from src.
func (u *User) set(src *User, set FieldSet) {
	for i := range fields {
		if f := &fields[i]; set.Has(f) {
			f.Copy(u, src)
		}
	}
}

// Sizes in User.Size.
const (
	userBytes    = 128 // a user without texts, lists and maps
	elementBytes = 4   // the overhead of an element of a list; a map entry has two
)

// size returns the size of a text, list or map.
func (f *Field) size(u *User) (bytes int) {
	switch {
	case f.Text != nil:
		return len(*f.Text(u))
	case f.List != nil:
		for _, element := range *f.List(u) {
			bytes += elementBytes + len(element)
		}
	case f.Map != nil:
		for key, value := range *f.Map(u) {
			bytes += 2*elementBytes + len(key) + len(value)
		}
	}
	return bytes
}

// Size returns the approximate encoded size of the user, in bytes.
func (u *User) Size() int {
	bytes := userBytes
	for _, f := range sized {
		bytes += f.size(u)
	}
	return bytes
}

// sized are the fields with a size.
var sized = func() (list []*Field) {
	for i := range fields {
		if fields[i].MaxBytes > 0 {
			list = append(list, &fields[i])
		}
	}
	return list
}()

// MaxUserSize returns the maximum Size of a valid user.
func MaxUserSize() int {
	bytes := userBytes
	for i := range fields {
		bytes += fields[i].MaxBytes
	}
	return bytes
}
