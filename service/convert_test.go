package service

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/yourorg/userservice/gen"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// The table of fields has the fields of User in the proto, and the requests have the writable ones.
func TestFieldsMatchProto(t *testing.T) {
	known := (&userv1.User{}).ProtoReflect().Descriptor().Fields()
	for i := range known.Len() {
		if name := string(known.Get(i).Name()); user.FieldByName(name) == nil {
			t.Errorf("the table of fields has no row of %s", name)
		}
	}
	for i := range user.Fields() {
		f := &user.Fields()[i]
		if f.Number >= user.InternalNumber {
			continue
		}
		fd := known.ByName(protoreflect.Name(f.Name))
		if fd == nil || int32(fd.Number()) != f.Number {
			t.Errorf("user.v1.User has no field %s = %d", f.Name, f.Number)
			continue
		}
		behavior, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
		if outputOnly := slices.Contains(behavior, annotations.FieldBehavior_OUTPUT_ONLY); outputOnly == f.Writable {
			t.Errorf("%s: OUTPUT_ONLY is %t, Writable is %t", f.Name, outputOnly, f.Writable)
		}
		inCreate := (&userv1.CreateUserRequest{}).ProtoReflect().Descriptor().Fields().ByName(fd.Name())
		if want := f.Writable && f.Status == nil; (inCreate != nil) != want {
			t.Errorf("CreateUserRequest has %s: %t, want %t", f.Name, inCreate != nil, want)
		} else if want {
			checkLimits(t, f, limitsOf(fd), limitsOf(inCreate))
		}
	}
}

// fieldLimits are the upper limits of a field in the proto. Those of elements are of a list or of the
// values of a map.
type fieldLimits struct {
	characters, bytes, items                uint64
	keyCharacters, elementChars, valueBytes uint64
}

func limitsOf(fd protoreflect.FieldDescriptor) fieldLimits {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	list, pairs := rules.GetRepeated(), rules.GetMap()
	return fieldLimits{
		characters: rules.GetString().GetMaxLen(), bytes: rules.GetString().GetMaxBytes(),
		items:         max(list.GetMaxItems(), pairs.GetMaxPairs()),
		keyCharacters: pairs.GetKeys().GetString().GetMaxLen(),
		elementChars:  list.GetItems().GetString().GetMaxLen(),
		valueBytes:    pairs.GetValues().GetString().GetMaxBytes(),
	}
}

// checkLimits compares the limits in User and in CreateUserRequest with those of the domain.
func checkLimits(t *testing.T, f *user.Field, inUser, inCreate fieldLimits) {
	t.Helper()
	if inUser != inCreate {
		t.Errorf("%s: limits of User = %+v, of CreateUserRequest = %+v, want equal", f.Name, inUser, inCreate)
	}
	want := fieldLimits{items: user.MaxTags, elementChars: user.MaxTag}
	switch {
	case f.Map != nil:
		want = fieldLimits{items: user.MaxMetadata, keyCharacters: user.MaxMetadataKey, valueBytes: user.MaxMetadataValue}
	case f.Text != nil:
		want = fieldLimits{characters: inUser.characters, bytes: uint64(f.MaxBytes) - 4*inUser.characters}
	}
	if inUser != want {
		t.Errorf("%s: limits of User = %+v, want %+v as in the domain", f.Name, inUser, want)
	}
}

// The comments of the proto files that list fields list those of the table.
func TestFieldListsAreDocumented(t *testing.T) {
	document := strings.Join(strings.Fields(gen.OpenAPI()), " ")
	var withheld user.FieldSet
	for i := range user.Fields() {
		if f := &user.Fields()[i]; f.Writable && !f.Public {
			withheld = withheld.With(f)
		}
	}
	for place, want := range map[string]string{
		"UpdateUserRequest.update_mask": "Fields to apply: " + strings.Join(user.WritableFields().Names(), ", ") + ", or metadata.<key>",
		"User":                          "The writable fields of an update are " + enumeration(user.WritableFields()) + ";",
		"ListUsersRequest.filter":       "AIP-160 over " + enumeration(user.FilterableFields()) + ", also",
		"UserService":                   `"[withheld]" instead of values of ` + enumeration(withheld) + ",",
	} {
		if !strings.Contains(document, want) {
			t.Errorf("comment of %s in the OpenAPI document does not contain %q", place, want)
		}
	}
}

// enumeration returns "a, b and c".
func enumeration(set user.FieldSet) string {
	names := set.Names()
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

func TestEachFieldIsConverted(t *testing.T) {
	u := storetest.FilledUser(1)
	m := userToProto(u, user.APIFields()).ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if !m.Has(fd) {
			t.Errorf("userToProto() does not set %s", fd.Name())
		}
		one := userToProto(u, user.NewFieldSet(string(fd.Name()))).ProtoReflect()
		one.Range(func(set protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if set.Number() != fd.Number() || !v.Equal(m.Get(fd)) {
				t.Errorf("userToProto(%s) sets %s", fd.Name(), set.Name())
			}
			return true
		})
	}
	profile := user.WritableFields() &^ user.NewFieldSet("status")
	got := profileFromProto(userToProto(u, user.APIFields()))
	if !got.Equal(u, profile) {
		t.Errorf("profileFromProto(User) = %+v, want %+v", got, u)
	}
	req := new(userv1.CreateUserRequest)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if own := req.ProtoReflect().Descriptor().Fields().ByName(fd.Name()); own != nil {
			req.ProtoReflect().Set(own, v)
		}
		return true
	})
	if got := profileFromProto(req); !got.Equal(u, profile) {
		t.Errorf("profileFromProto(CreateUserRequest) = %+v, want %+v", got, u)
	}
}

func TestTimeFromProto(t *testing.T) {
	for _, test := range []struct {
		name string
		ts   *timestamppb.Timestamp
		want time.Time
		bad  bool
	}{
		{name: "unset"},
		{name: "truncated", ts: &timestamppb.Timestamp{Seconds: 1, Nanos: 1999}, want: time.Unix(1, 1000).UTC()},
		{name: "before 1970", ts: &timestamppb.Timestamp{Seconds: -1, Nanos: 500_000_000}, want: time.Unix(-1, 500_000_000).UTC()},
		{name: "first instant is not unset", ts: timestamppb.New(time.Time{}), want: time.Time{}.Add(time.Microsecond)},
		{name: "last instant", ts: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999_999_999}, want: time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)},
		{name: "after the last instant", ts: &timestamppb.Timestamp{Seconds: 253402300800}, bad: true},
		{name: "before the first instant", ts: &timestamppb.Timestamp{Seconds: -62135596801}, bad: true},
		{name: "maximum seconds", ts: &timestamppb.Timestamp{Seconds: math.MaxInt64}, bad: true},
		{name: "negative nanoseconds", ts: &timestamppb.Timestamp{Nanos: -1}, bad: true},
		{name: "too many nanoseconds", ts: &timestamppb.Timestamp{Nanos: 1_000_000_000}, bad: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := timeFromProto("since", test.ts)
			if e, ok := user.AsError(err); ok != test.bad || ok && e.Violations[0].Field != "since" {
				t.Fatalf("timeFromProto() error = %v", err)
			}
			if !got.Equal(test.want) {
				t.Errorf("timeFromProto() = %v, want %v", got, test.want)
			}
		})
	}
}
