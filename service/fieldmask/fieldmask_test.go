package fieldmask_test

import (
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/fieldmask"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// The table of fields decides which fields a mask sets and clears.
func TestEachFieldInUpdateMask(t *testing.T) {
	filled := storetest.FilledUser(1)
	for i := range user.Fields() {
		f := &user.Fields()[i]
		patch, violations := fieldmask.Update(*filled, []string{f.Name})
		if f.Writable != (violations == nil) || f.Writable && patch.Set != user.NewFieldSet(f.Name) {
			t.Errorf("Update(%s) = fields %v, %v, want success only for a writable field", f.Name, patch.Set.Names(), violations)
		}
		if !f.Writable {
			continue
		}
		_, violations = fieldmask.Update(user.User{}, []string{f.Name})
		if f.Required != (violations != nil) {
			t.Errorf("Update(%s) of an empty value = %v, want a violation only of a required field", f.Name, violations)
		}
	}
	patch, violations := fieldmask.Update(*filled, []string{"*"})
	if violations != nil || patch.Set != user.WritableFields() {
		t.Errorf("Update(*) = fields %v, %v, want %v", patch.Set.Names(), violations, user.WritableFields().Names())
	}
}

func TestSelect(t *testing.T) {
	names := user.APIFields().Names()
	for _, test := range []struct {
		names []string
		want  user.FieldSet
		valid bool
	}{
		{nil, user.APIFields(), true},
		{names, user.APIFields(), true},
		{[]string{"createdAt", "tags"}, user.NewFieldSet("tags", "created_at"), true},
		{[]string{"status_time"}, 0, false},
		{[]string{"tags", "Tags"}, 0, false},
	} {
		got, err := fieldmask.Select(test.names)
		if got != test.want || (err == nil) != test.valid {
			t.Errorf("Select(%v) = %v, %v, want %v", test.names, got.Names(), err, test.want.Names())
		}
	}
	if slices.Contains(names, "status_time") || !slices.Contains(names, "etag") {
		t.Errorf("names of API fields = %v, want those of the proto", names)
	}
}
