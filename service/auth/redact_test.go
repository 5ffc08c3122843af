package auth

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// shown stands for the permission of the call itself.
const shown Permission = ""

// shownFields repeats the permission that each response field needs. A new field fails the
// test until it is listed here.
var shownFields = map[protoreflect.Name]map[Permission]string{
	"GetUserResponse":            {shown: "user"},
	"BatchGetUsersResponse":      {shown: "users missing_user_ids left_over_user_ids"},
	"ListUsersResponse":          {shown: "users next_page_token total_size total_size_estimated"},
	"CreateUserResponse":         {shown: "user"},
	"UpdateUserResponse":         {shown: "user"},
	"DeleteUserResponse":         {shown: "user"},
	"UndeleteUserResponse":       {shown: "user"},
	"PurgeUserResponse":          {shown: "activity_id"},
	"BatchCreateUsersResponse":   {shown: "created_count updated_count unchanged_count failed_count results failures"},
	"BatchCreateUsersResult":     {shown: "user_id outcome"},
	"BatchUpdateUsersResponse":   {shown: "updated_count errors failures failed_count"},
	"CreateUsersResponse":        {shown: "results"},
	"UpdateUsersResponse":        {shown: "results"},
	"UserResult":                 {shown: "outcome user failure"},
	"ListUserActivitiesResponse": {shown: "activities next_page_token"},
	"RecordUserActivityResponse": {shown: "activity"},
	"UpdateUserStatusResponse":   {shown: "status_update"},
	"WatchUsersResponse":         {shown: "user user_id removed synced progress activity_id epoch"},
	"User": {
		shown:     "user_id version etag",
		UsersRead: strings.Join((user.APIFields() &^ user.NewFieldSet("user_id", "version", "etag")).Names(), " "),
	},
	"UserStatusUpdate": {
		shown:      "user_id error failure client_seq epoch progress",
		StatusRead: "status timestamp activity_id",
	},
	"UserActivity": {
		shown: "activity_id user_id action timestamp " +
			"details[actor] details[note] details[new.status] details[email] details[old.emails]",
		UsersRead: "details[new.username] details[old.email] details[new.tags] details[new.metadata.plan]",
	},
	"ItemFailure": {
		shown:     "index user_id code reason message field_violations metadata[user_id] metadata[etag]",
		UsersRead: "metadata[changed_fields] metadata[holder_deleted]",
	},
}

// mapKeys are the keys used to fill maps.
var mapKeys = map[protoreflect.FullName][]string{
	"user.v1.UserActivity.details": {
		"actor", "note", "new.status", "email", "old.emails", "new.username", "old.email", "new.tags", "new.metadata.plan",
	},
	"user.v1.ItemFailure.metadata": {"user_id", "etag", "changed_fields", "holder_deleted"},
}

func TestRedactByPermission(t *testing.T) {
	sets := map[string]Permissions{"none": 0, "all": AllPermissions()}
	for _, p := range permissionBits {
		sets["only "+string(p)] = PermissionsOf(p)
		sets["all but "+string(p)] = AllPermissions().Without(p)
	}
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		output := methods.Get(i).Output()
		for name, set := range sets {
			response := newMessage(t, output)
			fill(t, response)
			got, want := map[string]bool{}, map[string]bool{}
			before := proto.Clone(response.Interface())
			policy := NewPolicy(ReflectionOff)
			ctx := WithCaller(t.Context(), Caller{Subject: "ann", Kind: Token, Permissions: set})
			shared := proto.Clone(before)
			copied, _ := policy.Redactor(ctx)(shared).(proto.Message)
			policy.Redact(ctx, response.Interface())
			if !proto.Equal(copied, response.Interface()) || !proto.Equal(shared, before) || proto.Equal(copied, before) != (copied == shared) {
				t.Errorf("%s with %s: Redacted() = %v, message = %v, want %v, and a copy only if it differs",
					methods.Get(i).Name(), name, copied, shared, response)
			}
			collect(response, "", got)
			expect(t, before.ProtoReflect(), "", set, want)
			for path := range want {
				if !got[path] {
					t.Errorf("%s with %s: field %s removed, want present", methods.Get(i).Name(), name, path)
				}
			}
			for path := range got {
				if !want[path] {
					t.Errorf("%s with %s: field %s present, want removed", methods.Get(i).Name(), name, path)
				}
			}
		}
	}
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) protoreflect.Message {
	t.Helper()
	message, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return message.New()
}

// fill sets every field at every depth.
func fill(t *testing.T, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch field := fields.Get(i); {
		case field.IsMap():
			keys := mapKeys[field.FullName()]
			if len(keys) == 0 {
				keys = []string{"key"}
			}
			for _, key := range keys {
				m.Mutable(field).Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString("value of "+key))
			}
		case field.IsList() && field.Message() != nil:
			element := m.Mutable(field).List().AppendMutable().Message()
			fill(t, element)
		case field.IsList():
			m.Mutable(field).List().Append(scalar(field))
		case field.Message() != nil:
			if own(field.Message()) {
				fill(t, m.Mutable(field).Message())
			} else {
				m.Mutable(field)
			}
		default:
			m.Set(field, scalar(field))
		}
	}
}

func own(d protoreflect.MessageDescriptor) bool { return d.ParentFile().Package() == "user.v1" }

func scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("value")
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	default:
		return protoreflect.ValueOfInt64(1)
	}
}

// collect returns the paths of the set and unredacted fields.
func collect(m protoreflect.Message, prefix string, paths map[string]bool) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		path := prefix + string(field.Name())
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				if value.String() != user.WithheldMark {
					paths[path+"["+key.String()+"]"] = true
				}
				return true
			})
			return true
		case field.Message() == nil || !own(field.Message()):
		case field.IsList():
			collect(value.List().Get(0).Message(), path+".", paths)
		default:
			collect(value.Message(), path+".", paths)
		}
		paths[path] = true
		return true
	})
}

// expect returns the paths that shownFields allows.
func expect(t *testing.T, m protoreflect.Message, prefix string, set Permissions, paths map[string]bool) {
	t.Helper()
	all := map[string]bool{}
	named := shownFields[m.Descriptor().Name()]
	for needs, list := range named {
		for _, name := range strings.Fields(list) {
			all[name] = true
			if needs == shown || set.Has(needs) {
				paths[prefix+name] = true
			}
		}
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		keys, keyed := mapKeys[field.FullName()]
		switch {
		case keyed:
			for _, key := range keys {
				if !all[name+"["+key+"]"] {
					t.Errorf("%s[%s] is not in the test's table", field.FullName(), key)
				}
			}
			continue
		case !all[name]:
			t.Errorf("%s is not in shownFields", field.FullName())
		case field.IsMap():
			if paths[prefix+name] {
				delete(paths, prefix+name)
				paths[prefix+name+"[key]"] = true
			}
		}
		if field.Message() == nil || field.IsMap() || !own(field.Message()) {
			continue
		}
		if field.IsList() {
			expect(t, m.Get(field).List().Get(0).Message(), prefix+name+".", set, paths)
		} else {
			expect(t, m.Get(field).Message(), prefix+name+".", set, paths)
		}
	}
}

func TestRedactDoesNotChangeSharedMaps(t *testing.T) {
	details := map[string]string{"new.email": "ann@example.org"}
	row := &userv1.UserActivity{ActivityId: 1, Details: details}
	NewPolicy(ReflectionOff).Redact(t.Context(), row)
	if details["new.email"] != "ann@example.org" {
		t.Error("Redact changed the shared map")
	}
	if row.GetDetails()["new.email"] != user.WithheldMark {
		t.Errorf("details = %v, want the redaction mark", row.GetDetails())
	}
}

func TestRedactError(t *testing.T) {
	mismatch := &user.Error{
		Code: user.Aborted, Reason: user.EtagMismatch, Message: "changed",
		Metadata: map[string]string{"user_id": "1", "etag": "2-x", "changed_fields": "email"},
	}
	for _, row := range []struct {
		err  error
		set  Permissions
		keys []string
	}{
		{mismatch, PermissionsOf(UsersWrite), []string{"etag", "user_id"}},
		{mismatch, PermissionsOf(UsersWrite, UsersRead), []string{"changed_fields", "etag", "user_id"}},
		{user.NewTakenError(user.EmailTaken, true), PermissionsOf(UsersWrite), nil},
		{user.NewTakenError(user.EmailTaken, true), PermissionsOf(UsersRead), []string{"holder_deleted"}},
		{user.NewNotFoundError(1), 0, []string{"user_id"}},
	} {
		err := RedactError(WithCaller(t.Context(), Caller{Kind: Token, Permissions: row.set}), row.err)
		e, ok := user.AsError(err)
		if !ok {
			t.Fatalf("RedactError(%v) = %v", row.err, err)
		}
		var keys []string
		for key := range e.Metadata {
			keys = append(keys, key)
		}
		if slices.Sort(keys); !slices.Equal(keys, row.keys) {
			t.Errorf("RedactError(%v) with %v has %v, want %v", row.err, row.set.List(), keys, row.keys)
		}
	}
	if len(mismatch.Metadata) != 3 {
		t.Error("RedactError changed its argument")
	}
	if err := RedactError(t.Context(), nil); err != nil {
		t.Errorf("RedactError(nil) = %v", err)
	}
}

// Reauthenticate requires the permissions that the messages of a stream used.
func TestRedactorRecordsUsedPermissions(t *testing.T) {
	ctx := WithCaller(t.Context(), Caller{Kind: Token, Permissions: AllPermissions()})
	policy := NewPolicy(ReflectionOff)
	redacted := policy.Redactor(ctx)
	redacted(&userv1.UserActivity{ActivityId: 1})
	if used := Permissions(callerStateOf(ctx).used.Load()); used != 0 {
		t.Errorf("without details: used %v, want none", used.List())
	}
	redacted(&userv1.UserActivity{ActivityId: 1, Details: map[string]string{"new.email": "a"}})
	if used := Permissions(callerStateOf(ctx).used.Load()); used != PermissionsOf(UsersRead) {
		t.Errorf("with details: used %v, want %s", used.List(), UsersRead)
	}
}
