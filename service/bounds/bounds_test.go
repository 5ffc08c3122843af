package bounds_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"pgregory.net/rapid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/bounds"
)

func newBounds(t testing.TB) *bounds.Bounds {
	t.Helper()
	b, err := bounds.New(userv1.File_user_v1_user_service_proto)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func repeat[T any](n int, of func(int) T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = of(i)
	}
	return all
}

func words(n int) []string { return repeat(n, func(i int) string { return fmt.Sprintf("w%d", i) }) }

func pairs(n int) map[string]string {
	all := make(map[string]string)
	for i := range n {
		all[fmt.Sprintf("k\"%d", i)] = "v\\"
	}
	return all
}

func ids(n int) []int64 { return repeat(n, func(i int) int64 { return int64(i)<<40 + 1 }) }

// form is one way to write a message.
type form struct {
	name string
	cut  func(*bounds.Bounds, proto.Message) (sent, kept []byte, err error)
	read func([]byte, proto.Message) error
}

func forms() []form {
	return []form{
		{"binary", func(b *bounds.Bounds, m proto.Message) (sent, kept []byte, err error) {
			if sent, err = proto.Marshal(m); err != nil {
				return nil, nil, err
			}
			kept, err = b.Binary(m.ProtoReflect().Descriptor().FullName(), sent)
			return sent, kept, err
		}, proto.Unmarshal},
		{"JSON", func(b *bounds.Bounds, m proto.Message) (sent, kept []byte, err error) {
			if sent, err = protojson.Marshal(m); err != nil {
				return nil, nil, err
			}
			kept, err = b.JSON(m.ProtoReflect().Descriptor().FullName(), bytes.Clone(sent))
			return sent, kept, err
		}, protojson.Unmarshal},
	}
}

// What is beyond a rule is cut so far that the rule refuses what is left, by the path of
// the field.
func TestTooManyElementsAreCutAndRefused(t *testing.T) {
	t.Parallel()
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	b := newBounds(t)
	users := func(n int) []*userv1.CreateUserRequest {
		return repeat(n, func(int) *userv1.CreateUserRequest { return &userv1.CreateUserRequest{} })
	}
	for path, m := range map[string]proto.Message{
		"requests":      &userv1.CreateUsersRequest{Requests: users(50_000), Atomic: true},
		"user_ids":      &userv1.BatchGetUsersRequest{UserIds: ids(100_000), Fields: words(3)},
		"fields":        &userv1.GetUserRequest{UserId: 1, Fields: words(100_000)},
		"tags":          &userv1.CreateUserRequest{Tags: words(100_000), Username: "after"},
		"metadata":      &userv1.CreateUserRequest{Metadata: pairs(50_000), Username: "anna"},
		"user.tags":     &userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Tags: words(100_000)}, RequestId: "x"},
		"user.metadata": &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Metadata: pairs(5_000)}},
	} {
		for _, form := range forms() {
			sent, kept, err := form.cut(b, m)
			if err != nil {
				t.Fatal(err)
			}
			if len(kept) > len(sent)/10 {
				t.Errorf("%s, %s: of %d bytes %d are kept", path, form.name, len(sent), len(kept))
			}
			got := m.ProtoReflect().New().Interface()
			if err := form.read(kept, got); err != nil {
				t.Errorf("%s, %s: %v", path, form.name, err)
			} else if err := validator.Validate(got); err == nil || !refuses(err, path) {
				t.Errorf("%s, %s: got %v", path, form.name, err)
			}
		}
	}
}

func refuses(err error, path string) bool {
	broken := new(protovalidate.ValidationError)
	return errors.As(err, &broken) && slices.ContainsFunc(broken.Violations, func(v *protovalidate.Violation) bool {
		return protovalidate.FieldPathString(v.Proto.GetField()) == path &&
			(v.Proto.GetRuleId() == "repeated.max_items" || v.Proto.GetRuleId() == "map.max_pairs")
	})
}

// An element with too much in it is cut by itself: the others may be good.
func TestElementsAreCutByThemselves(t *testing.T) {
	t.Parallel()
	b := newBounds(t)
	m := &userv1.UpdateUsersRequest{Requests: []*userv1.UpdateUserRequest{
		{UserId: 1, User: &userv1.User{Tags: words(5), Metadata: pairs(2)}},
		{UserId: 2, User: &userv1.User{Metadata: pairs(5_000)}, RequestId: "x"},
		{UserId: 3, User: &userv1.User{Tags: words(5_000), Username: "dropped"}},
		{UserId: 4, User: &userv1.User{Tags: words(5)}, RequestId: "y"},
	}, Atomic: true}
	for _, form := range forms() {
		_, kept, err := form.cut(b, m)
		got := &userv1.UpdateUsersRequest{}
		if err := errors.Join(err, form.read(kept, got)); err != nil {
			t.Fatal(form.name, err)
		}
		if len(got.GetRequests()[1].GetUser().GetMetadata()) != 65 || len(got.GetRequests()[2].GetUser().GetTags()) != 65 {
			t.Errorf("%s: got %v", form.name, got)
		}
		got.Requests[1], got.Requests[2] = m.GetRequests()[1], m.GetRequests()[2]
		if !proto.Equal(got, m) {
			t.Errorf("%s: got %v", form.name, got)
		}
	}
}

// What no rule refuses passes as it is.
func TestWhatIsAllowedPassesAsItIs(t *testing.T) {
	t.Parallel()
	b := newBounds(t)
	rapid.Check(t, func(t *rapid.T) {
		some := func(most int) int { return rapid.SampledFrom([]int{0, 1, most - 1, most}).Draw(t, "n") }
		user := func() *userv1.User { return &userv1.User{Tags: words(some(64)), Metadata: pairs(some(64))} }
		for _, m := range []proto.Message{
			&userv1.UpdateUserRequest{User: user(), UpdateMask: &fieldmaskpb.FieldMask{Paths: words(some(1000))}},
			&userv1.UpdateUsersRequest{Requests: repeat(3, func(int) *userv1.UpdateUserRequest { return &userv1.UpdateUserRequest{User: user()} })},
			&userv1.CreateUsersRequest{Requests: repeat(some(1000), func(int) *userv1.CreateUserRequest { return &userv1.CreateUserRequest{} })},
			&userv1.WatchUserStatusRequest{UserIds: ids(some(10_000)), All: true},
			&userv1.RecordUserActivityRequest{Details: pairs(some(64)), Action: `{"[,`},
		} {
			for _, form := range forms() {
				sent, kept, err := form.cut(b, m)
				if err != nil || !bytes.Equal(sent, kept) {
					t.Fatalf("%s: %d bytes became %d, %v", form.name, len(sent), len(kept), err)
				}
			}
		}
	})
}

// What there is no rule for is refused as a whole.
func TestTooManyElementsWithoutARule(t *testing.T) {
	t.Parallel()
	b := newBounds(t)
	for path, m := range map[string]proto.Message{
		"update_mask.paths": &userv1.UpdateUserRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: words(1001)}},
		"error.details": &userv1.UserStatusUpdate{Error: &status.Status{Details: repeat(1001, func(int) *anypb.Any {
			return &anypb.Any{TypeUrl: "type.googleapis.com/user.v1.User"}
		})}},
	} {
		for _, form := range forms() {
			if _, _, err := form.cut(b, m); err == nil || err.Error() != path+": more than 1000 elements" {
				t.Errorf("%s: got %v", form.name, err)
			}
		}
	}
}

// A list that comes in parts is one list, and so is one within a message that does.
func TestPartsCountTogether(t *testing.T) {
	t.Parallel()
	b := newBounds(t)
	part, err := proto.Marshal(&userv1.UpdateUserRequest{User: &userv1.User{Tags: words(10)}})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := b.Binary("user.v1.UpdateUserRequest", bytes.Repeat(part, 1000))
	got := &userv1.UpdateUserRequest{}
	if err != nil || proto.Unmarshal(kept, got) != nil || len(got.GetUser().GetTags()) != 65 {
		t.Errorf("%d tags, %v", len(got.GetUser().GetTags()), err)
	}
}

// Entries with one key are one pair: there is nothing that a rule would refuse, so
// nothing may be dropped in silence.
func TestEntriesWithTheSameKey(t *testing.T) {
	t.Parallel()
	entry, err := proto.Marshal(&userv1.CreateUserRequest{Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newBounds(t).Binary("user.v1.CreateUserRequest", bytes.Repeat(entry, 65)); err == nil {
		t.Error("it was cut")
	}
}

// A field of another type than the proto's is unknown to the decoder, and counts as
// little.
func TestFieldsOfTheWrongTypeDoNotCount(t *testing.T) {
	t.Parallel()
	var wrong []byte
	for range 100 {
		wrong = protowire.AppendVarint(protowire.AppendTag(wrong, 2, protowire.VarintType), 1) // fields
	}
	wrong = protowire.AppendVarint(protowire.AppendTag(wrong, 1, protowire.VarintType), 7)
	if kept, err := newBounds(t).Binary("user.v1.GetUserRequest", wrong); err != nil || len(kept) != len(wrong) {
		t.Errorf("%d of %d, %v", len(kept), len(wrong), err)
	}
}

func TestAnUnknownMemberIsTheLast(t *testing.T) {
	t.Parallel()
	text := `{"userId":"1","f\u0069elds":["a"],"nope":[{"a":"]"}],` + strings.Repeat(`"b":1,`, 1000) + `"c":1}`
	kept, err := newBounds(t).JSON("user.v1.GetUserRequest", []byte(text))
	if want := `{"userId":"1","f\u0069elds":["a"],"nope":[{"a":"]"}]}`; err != nil || string(kept) != want {
		t.Errorf("got %s, %v", kept, err)
	}
}

// Whatever the bytes are: what can be read can be read when it was cut, and nothing is
// cut that changes nothing.
func FuzzBounds(f *testing.F) {
	for _, form := range forms() {
		sent, _, err := form.cut(newBounds(f), &userv1.UpdateUsersRequest{Requests: []*userv1.UpdateUserRequest{
			{User: &userv1.User{Tags: words(3), Metadata: pairs(3)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: words(2)}},
		}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sent)
	}
	f.Add([]byte(`{"requests":[{"user":{"tags":["\"`))
	f.Add([]byte(`{"requests":{"user":{"metadata":{"":00`))
	b := newBounds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, form := range []struct {
			cut  func(protoreflect.FullName, []byte) ([]byte, error)
			read func([]byte, proto.Message) error
		}{{b.Binary, proto.Unmarshal}, {b.JSON, protojson.Unmarshal}} {
			kept, err := form.cut("user.v1.UpdateUsersRequest", bytes.Clone(data))
			if err != nil {
				continue
			}
			all, part := &userv1.UpdateUsersRequest{}, &userv1.UpdateUsersRequest{}
			if form.read(data, all) != nil {
				continue
			}
			if err := form.read(kept, part); err != nil {
				t.Errorf("%q can be read, what is kept of it, %q, cannot: %v", data, kept, err)
			}
			if !bytes.Equal(kept, data) && proto.Equal(all, part) {
				t.Errorf("%q was cut for nothing", data)
			}
		}
	})
}

// BenchmarkBinary is what a small call and a large batch pay.
func BenchmarkBinary(b *testing.B) {
	held := newBounds(b)
	for name, m := range map[string]proto.Message{
		"get": &userv1.GetUserRequest{UserId: 1 << 50},
		"batch": &userv1.CreateUsersRequest{Requests: repeat(1000, func(i int) *userv1.CreateUserRequest {
			return &userv1.CreateUserRequest{Username: fmt.Sprint("user", i), Email: "a@example.org", Tags: words(3), Metadata: pairs(3)}
		})},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := held.Binary(m.ProtoReflect().Descriptor().FullName(), data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-decode", func(b *testing.B) {
			for b.Loop() {
				if err := proto.Unmarshal(data, m.ProtoReflect().New().Interface()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
