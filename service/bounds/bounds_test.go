package bounds_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/bounds"
)

func repeat[T any](n int, of func(int) T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = of(i)
	}
	return all
}

func words(n int) []string { return repeat(n, func(i int) string { return fmt.Sprint(i) }) }

func pairs(n int) map[string]string {
	all := make(map[string]string)
	for i := range n {
		all[fmt.Sprint(i)] = ""
	}
	return all
}

// messages have many elements and few bytes.
func messages() map[string]proto.Message {
	const n = 3000
	return map[string]proto.Message{
		"empty messages": &userv1.CreateUsersRequest{Requests: repeat(n, func(int) *userv1.CreateUserRequest { return &userv1.CreateUserRequest{} })},
		"messages in messages": &userv1.UpdateUsersRequest{Requests: repeat(n, func(int) *userv1.UpdateUserRequest {
			return &userv1.UpdateUserRequest{User: &userv1.User{CreatedAt: &timestamppb.Timestamp{}}, UpdateMask: &fieldmaskpb.FieldMask{}}
		})},
		"empty strings":  &userv1.CreateUserRequest{Tags: make([]string, n)},
		"short strings":  &userv1.CreateUserRequest{Tags: words(n)},
		"pairs":          &userv1.CreateUserRequest{Metadata: pairs(n)},
		"numbers":        &userv1.BatchGetUsersRequest{UserIds: make([]int64, n)},
		"mask":           &userv1.UpdateUserRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: repeat(n, func(int) string { return "a" })}},
		"details":        &userv1.UserStatusUpdate{Error: &status.Status{Details: repeat(n, func(int) *anypb.Any { return &anypb.Any{TypeUrl: "type.googleapis.com/user.v1.User"} })}},
		"a small update": &userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Email: "a@example.com"}},
	}
}

// decodedBytes returns the memory retained per decoded message. It decodes many times to
// average out allocations of the runtime.
func decodedBytes(t *testing.T, data []byte, like proto.Message, decode func([]byte, proto.Message) error) int64 {
	t.Helper()
	const times = 20
	kept := make([]proto.Message, times)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = like.ProtoReflect().New().Interface()
		if err := decode(data, kept[i]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / times
}

// The bound is never below the memory of the decoded message, and not so far above it that
// ordinary messages would be rejected.
func TestBoundCoversDecodedMessage(t *testing.T) {
	for name, m := range messages() {
		binaryForm, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for form, c := range map[string]struct {
			estimate, takes int64
			most            int64 // times what it takes
		}{
			"binary": {bounds.Binary(m.ProtoReflect().Descriptor(), binaryForm, 1<<40), decodedBytes(t, binaryForm, m, proto.Unmarshal), 8},
			"JSON":   {bounds.JSON(text), decodedBytes(t, text, m, protojson.Unmarshal), 24},
		} {
			if c.estimate < c.takes || c.estimate > c.most*c.takes+4096 {
				t.Errorf("%s in %s: bound = %d, want at least the measured %d and at most %d times that",
					name, form, c.estimate, c.takes, c.most)
			}
		}
	}
}

// The bound of a valid message is within the limit of the server.
func TestLargestValidBatchFits(t *testing.T) {
	t.Parallel()
	const limit = 32 << 20
	item := &userv1.UpdateUserRequest{UserId: 1 << 60, User: &userv1.User{Tags: words(64), Metadata: pairs(64)}, Etag: "e"}
	m := &userv1.UpdateUsersRequest{Requests: repeat(1000, func(int) *userv1.UpdateUserRequest { return item })}
	binaryForm, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if got := bounds.Binary(m.ProtoReflect().Descriptor(), binaryForm, 1<<40); got > limit {
		t.Errorf("Binary() = %d, want at most %d", got, limit)
	}
	if got := bounds.JSON(text); got > limit {
		t.Errorf("JSON() = %d, want at most %d", got, limit)
	}
}

// Escaped names and commas, white space and truncated data do not hide elements.
func TestObfuscatedElementsCount(t *testing.T) {
	t.Parallel()
	const n = 1000
	for name, text := range map[string]string{
		"mask":              `{"updateMask":"` + strings.Repeat("a,", n) + `a"}`,
		"escaped name":      `{"update\u004dask":"` + strings.Repeat("a,", n) + `a"}`,
		"name as in proto":  `{"update_mask" : "` + strings.Repeat("a,", n) + `a"}`,
		"escaped commas":    `{"updateMask":"` + strings.Repeat(`a\u002c`, n) + `a"}`,
		"quotes in strings": `{"tags":["\"` + strings.Repeat(`","`, n) + `"]}`,
		"truncated":         `{"tags":[` + strings.Repeat(`"",`, n),
	} {
		if got := bounds.JSON([]byte(text)); got < 40*n {
			t.Errorf("%s: JSON() = %d, want at least %d", name, got, 40*n)
		}
	}
	if got := bounds.JSON([]byte(`{"username":"` + strings.Repeat(",{[:", n) + `"}`)); got > 10*n {
		t.Errorf("punctuation inside a string: JSON() = %d, want a small bound", got)
	}
	var cut []byte
	for range n {
		cut = append(cut, 0x0a, 0) // requests, empty
	}
	cut = append(append([]byte{0x0a, 0xff, 0xff, 0x7f}, cut...), 1) // a field longer than the data
	m := (&userv1.CreateUsersRequest{}).ProtoReflect().Descriptor()
	if got := bounds.Binary(m, cut, 1<<40); got < 40*n {
		t.Errorf("truncated field: Binary() = %d, want at least %d", got, 40*n)
	}
	if got := bounds.Binary(nil, cut, 1<<40); got < 40*n {
		t.Errorf("unknown type: Binary() = %d, want at least %d", got, 40*n)
	}
}

func BenchmarkEstimate(b *testing.B) {
	m := &userv1.CreateUsersRequest{Requests: repeat(1000, func(i int) *userv1.CreateUserRequest {
		return &userv1.CreateUserRequest{Username: fmt.Sprint("user", i), Email: "a@example.org", Tags: words(3), Metadata: pairs(3)}
	})}
	binaryForm, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	for name, run := range map[string]func(){
		"binary":        func() { bounds.Binary(m.ProtoReflect().Descriptor(), binaryForm, 1<<40) },
		"binary-decode": func() { _ = proto.Unmarshal(binaryForm, &userv1.CreateUsersRequest{}) },
		"json":          func() { bounds.JSON(text) },
		"json-decode":   func() { _ = protojson.Unmarshal(text, &userv1.CreateUsersRequest{}) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				run()
			}
		})
	}
}
