package validate_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// validRequests are requests that are not valid when they are empty.
var validRequests = []proto.Message{
	&userv1.CreateUserRequest{Username: "anna", Email: "anna@example.org"},
	&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Email: "anna@example.org"}},
	&userv1.GetUserRequest{UserId: 1},
	&userv1.BatchGetUsersRequest{UserIds: []int64{1}},
	&userv1.RecordUserActivityRequest{UserId: 1, Action: "login"},
	&userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Username: "anna", Email: "anna@example.org"}},
}

// Lists and maps of scalars are valid exactly if protovalidate accepts them: each is set to random values in a
// request that is valid without it.
func TestListsAndMapsAreValidAsInProtovalidate(t *testing.T) {
	check := newValidator(t).Validate
	random := rand.New(rand.NewPCG(1, 2))
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	fields := 0
	for i := range methods.Len() {
		input := methods.Get(i).Input()
		for _, path := range containers(input, nil) {
			field := path[len(path)-1]
			accepted := 0
			for range 100 {
				request := validRequest(input)
				fill(random, holder(request.ProtoReflect(), path), field)
				err, want := check(request), protovalidate.Validate(request)
				if (err == nil) != (want == nil) {
					t.Fatalf("%v: got %v, want %v", request, err, want)
				}
				if err == nil {
					accepted++
				}
			}
			if fields++; accepted == 0 {
				t.Errorf("%s in %s: no request was valid", field.Name(), input.Name())
			}
		}
	}
	if fields < 10 {
		t.Errorf("%d lists and maps were tested, want at least 10", fields)
	}
}

func validRequest(input protoreflect.MessageDescriptor) proto.Message {
	for _, m := range validRequests {
		if m.ProtoReflect().Descriptor() == input {
			return proto.Clone(m)
		}
	}
	return dynamicpb.NewMessage(input)
}

// containers returns the paths of the lists and maps of scalars in a message.
func containers(message protoreflect.MessageDescriptor, path []protoreflect.FieldDescriptor) (found [][]protoreflect.FieldDescriptor) {
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		at := slices.Concat(path, []protoreflect.FieldDescriptor{field})
		switch {
		case field.IsMap(), field.IsList() && field.Message() == nil:
			found = append(found, at)
		case !field.IsList() && field.Message() != nil && len(path) < 3:
			found = append(found, containers(field.Message(), at)...)
		}
	}
	return found
}

func holder(m protoreflect.Message, path []protoreflect.FieldDescriptor) protoreflect.Message {
	for _, field := range path[:len(path)-1] {
		m = m.Mutable(field).Message()
	}
	return m
}

// fill sets a list or map to a random value near the limits of its rules.
func fill(random *rand.Rand, m protoreflect.Message, field protoreflect.FieldDescriptor) {
	n := []int{0, 1, 2, 3, 63, 64, 65, 1000, 1001}[random.IntN(9)]
	wrong := random.IntN(3) == 0
	for i := range n {
		at := i
		if wrong && random.IntN(n) == 0 {
			at = -1 // an invalid or repeated element
		}
		if field.IsMap() {
			m.Mutable(field).Map().Set(scalar(random, field.MapKey(), i+1, at < 0).MapKey(), scalar(random, field.MapValue(), i+1, at < 0))
		} else {
			m.Mutable(field).List().Append(scalar(random, field, i+1, at < 0))
		}
	}
}

func scalar(random *rand.Rand, field protoreflect.FieldDescriptor, n int, odd bool) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.Int64Kind:
		if odd {
			n = []int{-1, 0, 1}[random.IntN(3)]
		} else if random.IntN(2) == 0 {
			n = 5000 - n
		}
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.StringKind:
		text := string(rune(0x4e00 + n)) // three bytes
		if odd {
			text = []string{"", strings.Repeat("é", 64), strings.Repeat("é", 65), strings.Repeat("x", 1024), strings.Repeat("é", 513), "一"}[random.IntN(6)]
		}
		return protoreflect.ValueOfString(text)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(min(n, 3)))
	default:
		return field.Default()
	}
}
