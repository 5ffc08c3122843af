package validate_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// NUL is rejected in every string of every request, with the path of the field.
func TestNULIsRejectedInEveryString(t *testing.T) {
	check := newValidator(t).Validate
	texts := 0
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(i).Input().FullName())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range textPlaces(kind.New(), nil) {
			texts++
			m := kind.New()
			p.set(m)
			e, ok := user.AsError(check(m.Interface()))
			if !ok || !slices.ContainsFunc(e.Violations, func(v user.Violation) bool { return v.Field == p.path }) {
				t.Errorf("%s with NUL in %s: error = %v", kind.Descriptor().Name(), p.path, e)
			}
		}
	}
	if texts < 40 {
		t.Errorf("only %d strings found", texts)
	}
}

// Items are validated separately, so NUL in an item fails only that item.
func TestNULInAnItemFailsTheItem(t *testing.T) {
	check := newValidator(t).Validate
	item := &userv1.CreateUserRequest{Username: "anna", Email: "a@example.org", Tags: []string{"a\x00"}}
	if err := check(&userv1.CreateUsersRequest{Requests: []*userv1.CreateUserRequest{item}}); err != nil {
		t.Errorf("request with a bad item: error = %v, want nil", err)
	}
	if e, ok := user.AsError(check(item)); !ok || e.Violations[0].Field != "tags[0]" {
		t.Errorf("Item() = %v, want a violation of tags[0]", e)
	}
}

// textPlace is the path of a string in a message.
type textPlace struct {
	path string
	set  func(protoreflect.Message) // sets a string with NUL
}

func textPlaces(m protoreflect.Message, within []protoreflect.FullName) (places []textPlace) {
	nul := protoreflect.ValueOfString("a\x00b")
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		switch {
		case field.IsMap():
			places = append(places,
				textPlace{name + `["a\x00b"]`, func(m protoreflect.Message) {
					m.Mutable(field).Map().Set(nul.MapKey(), protoreflect.ValueOfString("v"))
				}},
				textPlace{name + `["k"]`, func(m protoreflect.Message) {
					m.Mutable(field).Map().Set(protoreflect.ValueOfString("k").MapKey(), nul)
				}})
		case field.Kind() == protoreflect.StringKind && field.IsList():
			places = append(places, textPlace{name + "[0]", func(m protoreflect.Message) { m.Mutable(field).List().Append(nul) }})
		case field.Kind() == protoreflect.StringKind:
			places = append(places, textPlace{name, func(m protoreflect.Message) { m.Set(field, nul) }})
		case field.Kind() == protoreflect.MessageKind && !field.IsList():
			inner := m.NewField(field).Message()
			if slices.Contains(within, inner.Descriptor().FullName()) {
				continue
			}
			for _, p := range textPlaces(inner, append(within, inner.Descriptor().FullName())) {
				places = append(places, textPlace{name + "." + p.path, func(m protoreflect.Message) {
					p.set(m.Mutable(field).Message())
				}})
			}
		}
	}
	return places
}

func BenchmarkValidate(b *testing.B) {
	check := newValidator(b).Validate
	tenThousand := make([]int64, 10_000)
	for i := range tenThousand {
		tenThousand[i] = int64(i + 1)
	}
	for name, m := range map[string]proto.Message{
		"get":    &userv1.GetUserRequest{UserId: 1},
		"watch":  &userv1.WatchUserStatusRequest{UserIds: tenThousand},
		"create": &userv1.CreateUserRequest{Username: "anna", Email: "a@example.org", Tags: []string{"a", "b"}, Metadata: map[string]string{"k": "v"}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := check(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
