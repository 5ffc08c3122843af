package user_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// accessed returns the number of accessors of a field, and the address of its value in u.
func accessed(f *user.Field, u *user.User) (accessors int, address any) {
	value := reflect.ValueOf(*f)
	for i := range value.NumField() {
		if access := value.Field(i); access.Kind() == reflect.Func && !access.IsNil() {
			accessors++
			address = access.Call([]reflect.Value{reflect.ValueOf(u)})[0].Interface()
		}
	}
	return accessors, address
}

func TestTableHasEachField(t *testing.T) {
	u := new(user.User)
	rows := make(map[any]string)
	seen := make(map[any]bool)
	for i := range user.Fields() {
		f := &user.Fields()[i]
		accessors, address := accessed(f, u)
		if accessors > 1 || f.Computed() != (accessors == 0) {
			t.Errorf("%s: %d accessors, want one, or none of a computed field", f.Name, accessors)
		}
		if seen[f.Name] || seen[f.Number] || f.Number == 0 {
			t.Errorf("%s: name or number %d is not unique", f.Name, f.Number)
		}
		seen[f.Name], seen[f.Number] = true, true
		if !f.Computed() {
			if rows[address] != "" {
				t.Errorf("%s and %s have the same accessor", f.Name, rows[address])
			}
			rows[address] = f.Name
		}
		if sized := f.Text != nil || f.List != nil || f.Map != nil; sized != (f.MaxBytes > 0) {
			t.Errorf("%s: MaxBytes = %d, want a limit of each text, list and map", f.Name, f.MaxBytes)
		}
		if (f.Required || f.Public && f.Status != nil) && !f.Writable {
			t.Errorf("%s: not writable", f.Name)
		}
	}
	fields := reflect.ValueOf(u).Elem()
	for i := range fields.NumField() {
		if rows[fields.Field(i).Addr().Interface()] == "" {
			t.Errorf("User.%s has no row in the table of fields", fields.Type().Field(i).Name)
		}
	}
}

// Each writable field is created, patched, recorded in the log, and redacted unless it is public.
func TestWritableFields(t *testing.T) {
	first, second := storetest.FilledUser(1), storetest.FilledUser(2)
	create, err := user.NewCreate(*first)
	if err != nil {
		t.Fatal(err)
	}
	created, err := create.Decide(nil, stamp, by)
	if err != nil {
		t.Fatal(err)
	}
	update, err := user.NewUpdate(created.User.ID, user.NewPatch(*second), "")
	if err != nil {
		t.Fatal(err)
	}
	updated, err := update.Decide(created.User, stamp, by)
	if err != nil {
		t.Fatal(err)
	}
	details := make(map[string]string)
	for _, row := range updated.Rows {
		for key, value := range row.Details {
			details[key] = value
		}
	}
	for i := range user.Fields() {
		f := &user.Fields()[i]
		if !f.Writable {
			continue
		}
		field := user.NewFieldSet(f.Name)
		if f.Status == nil && !created.User.Equal(first, field) {
			t.Errorf("create does not set %s", f.Name)
		}
		if !updated.User.Equal(second, field) {
			t.Errorf("update does not set %s", f.Name)
		}
		if first.Equal(second, field) || new(user.User).NonEmpty().Has(f) {
			t.Errorf("Equal or NonEmpty ignores %s", f.Name)
		}
		found := false
		for key, value := range details {
			found = found || value != "" && strings.HasPrefix(key, "old."+f.Name) && details["new"+key[3:]] != ""
		}
		if !found {
			t.Errorf("details %v have no old and new value of %s", details, f.Name)
		}
		for key := range details {
			if !strings.HasPrefix(key, "old."+f.Name) && !strings.HasPrefix(key, "new."+f.Name) {
				continue
			}
			value := details[key]
			if shown := user.RedactDetails(details)[key]; (shown == value) != f.Public {
				t.Errorf("RedactDetails shows %s = %q, want the value only if it is public: %t", key, shown, f.Public)
			}
			if shown := user.WithholdDetails(details)[key]; (shown == value) != f.Public {
				t.Errorf("WithholdDetails shows %s = %q, want the value only if it is public: %t", key, shown, f.Public)
			}
		}
	}
}

func TestFindField(t *testing.T) {
	for name, want := range map[string]string{
		"created_at": "created_at", "createdAt": "created_at", "user_id": "user_id", "userId": "user_id", "etag": "etag",
		"": "", "UserId": "", "status_time": "", "statusTime": "", "tags.0": "",
	} {
		got := ""
		if f := user.FindField(name); f != nil {
			got = f.Name
		}
		if got != want {
			t.Errorf("FindField(%q) = %q, want %q", name, got, want)
		}
	}
	if f := user.FieldByName("createdAt"); f != nil {
		t.Errorf("FieldByName(createdAt) = %s, want nil", f.Name)
	}
}
