package jsonpb_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/jsonpb"
)

func TestErrorsHaveFieldAndExpectation(t *testing.T) {
	t.Parallel()
	create, update := &userv1.CreateUserRequest{}, &userv1.UpdateUserRequest{}
	for _, test := range []struct {
		message proto.Message
		text    string
		want    string
	}{
		{create, `{"tags":"x"}`, "tags: must be an array of strings (line 1:9)"},
		{create, `{"tags":{"a":1}}`, "tags: must be an array of strings (line 1:9)"},
		{create, `{"tags":["a",1]}`, "tags[1]: must be a string (line 1:14)"},
		{create, `{"tags":["a",null]}`, "tags[1]: must be a string (line 1:14)"},
		{create, `{"tags":["a",["b"]]}`, "tags[1]: must be a string (line 1:14)"},
		{create, `{"metadata":{"a":1}}`, `metadata["a"]: must be a string (line 1:18)`},
		{create, `{"metadata":{"a b\"c":{}}}`, `metadata["a b\"c"]: must be a string (line 1:23)`},
		{create, `{"metadata":[]}`, "metadata: must be an object whose values are strings (line 1:13)"},
		{create, `{"metadata":{"a":"1","a":"2"}}`, `metadata["a"]: duplicate name (line 1:22)`},
		{create, `{"username":7}`, "username: must be a string (line 1:13)"},
		{create, `{"username":` + "\n  true}", "username: must be a string (line 2:3)"},
		{create, `{"validateOnly":"yes"}`, "validate_only: must be true or false (line 1:17)"},
		{create, `{"validate_only":1}`, "validate_only: must be true or false (line 1:18)"},
		{create, `{"nope":1}`, "nope: unknown field (line 1:2)"},
		{create, `{"username":"a","username":"b"}`, "username: duplicate name (line 1:17)"},
		{create, "{\"username\":\"a\xff\"}", "username: must be UTF-8 (line 1:13)"},
		{create, `{"username":"a",}`, "invalid JSON: trailing comma before } (line 1:17)"},
		{create, `{"tags":["a",]}`, "invalid JSON: trailing comma before ] (line 1:14)"},
		{create, `{"username":"a"`, "invalid JSON: unexpected end (line 1:16)"},
		{create, `{"username":`, "invalid JSON: unexpected end (line 1:13)"},
		{create, `{"username"`, "invalid JSON: unexpected end (line 1:12)"},
		{create, `{"username" 1}`, "invalid JSON: unexpected '1' (line 1:13)"},
		{create, `{"username":tru}`, "invalid JSON: unexpected 't' (line 1:13)"},
		{create, `{username:"a"}`, "invalid JSON: unexpected 'u' (line 1:2)"},
		{create, `{'username':"a"}`, `invalid JSON: unexpected '\'' (line 1:2)`},
		{create, `{} {}`, "invalid JSON: unexpected '{' (line 1:4)"},
		{create, `[]`, "must be a JSON object (line 1:1)"},
		{create, `null`, "must be a JSON object (line 1:1)"},
		{create, `"a"`, "must be a JSON object (line 1:1)"},
		{create, ` `, "must be a JSON object, not empty"},
		{update, `{"user":{"status":"PURPLE"}}`, "user.status: must be one of ACTIVE, INACTIVE, SUSPENDED (line 1:19)"},
		{update, `{"user":{"status":true}}`, "user.status: must be one of ACTIVE, INACTIVE, SUSPENDED (line 1:19)"},
		{update, `{"user":{"createdAt":"yesterday"}}`, "user.created_at: must be an RFC 3339 time in the years 1 to 9999, such as 2026-01-31T12:34:56Z (line 1:22)"},
		{update, `{"user":{"createdAt":"10000-01-01T00:00:00Z"}}`, "user.created_at: must be an RFC 3339 time in the years 1 to 9999, such as 2026-01-31T12:34:56Z (line 1:22)"},
		{update, `{"user":{"createdAt":{"seconds":1}}}`, "user.created_at: must be an RFC 3339 time in the years 1 to 9999, such as 2026-01-31T12:34:56Z (line 1:22)"},
		{update, `{"user":"ann"}`, "user: must be an object (line 1:9)"},
		{update, `{"userId":"x"}`, "user_id: must be a 64-bit integer (line 1:11)"},
		{update, `{"userId":1e300}`, "user_id: must be a 64-bit integer (line 1:11)"},
		{update, `{"updateMask":["email"]}`, "update_mask: must be field names in lowerCamelCase, separated by commas (line 1:15)"},
		{update, `{"updateMask":"created_at"}`, "update_mask: must be field names in lowerCamelCase, separated by commas (line 1:15)"},
		{update, `{"updateMask":"email,metadata.fooBar"}`, "update_mask: must not name a key of metadata with an upper-case letter: the JSON form of a mask changes it; name metadata instead"},
		{&userv1.UpdateUsersRequest{}, `{"requests":[{},{"user":{"status":"ACTIVE"},"updateMask":"metadata.a.bC"}]}`, "requests[1].update_mask: must not name a key of metadata with an upper-case letter: the JSON form of a mask changes it; name metadata instead"},
		{update, `{"user":{"status":"ACTIVE","nope":1}}`, "user.nope: unknown field (line 1:28)"},
		{update, `{"user":{"status":"ACTIVE"},"userId":"x"}`, "user_id: must be a 64-bit integer (line 1:38)"},
		{update, `{"user":{"status":"ACTIVE",}}`, "invalid JSON: trailing comma before } (line 1:28)"},
		{&userv1.UpdateUsersRequest{}, `{"requests":[{"userId":"1"},{"user":{"tags":[1]}}]}`, "requests[1].user.tags[0]: must be a string (line 1:46)"},
		{&userv1.UpdateUsersRequest{}, `{"requests":{"userId":"1"}}`, "requests: must be an array of objects (line 1:13)"},
		{&userv1.UpdateUsersRequest{}, `{"requests":[7]}`, "requests[0]: must be an object (line 1:14)"},
		{&userv1.BatchGetUsersRequest{}, `{"userIds":["1","x"]}`, "user_ids[1]: must be a 64-bit integer (line 1:17)"},
		{&userv1.BatchGetUsersRequest{}, `{"userIds":"1"}`, "user_ids: must be an array of integers (line 1:12)"},
		{&userv1.ListUsersRequest{}, `{"pageSize":2.5}`, "page_size: must be a 32-bit integer (line 1:13)"},
		{&userv1.ListUsersRequest{}, `{"pageSize":NaN}`, "invalid JSON: unexpected 'N' (line 1:13)"},
	} {
		err := jsonpb.Unmarshal([]byte(test.text), test.message)
		if err == nil || err.Error() != test.want {
			t.Errorf("Unmarshal(%s) = %v, want %s", test.text, err, test.want)
		}
		if e := (*jsonpb.Error)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("Unmarshal(%s) error has type %T, want *Error", test.text, err)
		}
	}
}

func TestDeepNesting(t *testing.T) {
	t.Parallel()
	for _, piece := range []string{`{"a":`, `{"user":`, `[`, `{"requests":[`} {
		err := jsonpb.Unmarshal([]byte(strings.Repeat(piece, 1_000_000)), &userv1.UpdateUsersRequest{})
		if err == nil || len(err.Error()) > 200 {
			t.Errorf("Unmarshal(%s…) = %.300v, want a short error", piece, err)
		}
	}
}

func TestShortEnumNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]proto.Message{
		`{"status":"ACTIVE"}`:                &userv1.UserStatusUpdate{Status: userv1.UserStatus_USER_STATUS_ACTIVE},
		`{"status":"USER_STATUS_SUSPENDED"}`: &userv1.UserStatusUpdate{Status: userv1.UserStatus_USER_STATUS_SUSPENDED},
		`{"status":2}`:                       &userv1.UserStatusUpdate{Status: userv1.UserStatus_USER_STATUS_INACTIVE},
		`{"requests":[{"user":{"username":"ACTIVE","status":"ACTIVE"}},{"user":{"status":"USER_STATUS_INACTIVE"}},{"user":{"status" : "SUSPENDED"}}]}`: &userv1.UpdateUsersRequest{
			Requests: []*userv1.UpdateUserRequest{
				{User: &userv1.User{Username: "ACTIVE", Status: userv1.UserStatus_USER_STATUS_ACTIVE}},
				{User: &userv1.User{Status: userv1.UserStatus_USER_STATUS_INACTIVE}},
				{User: &userv1.User{Status: userv1.UserStatus_USER_STATUS_SUSPENDED}},
			},
		},
		`{"requests":[],"conflictPolicy":"SKIP"}`: &userv1.CreateUsersRequest{ConflictPolicy: userv1.ConflictPolicy_CONFLICT_POLICY_SKIP},
	} {
		got := want.ProtoReflect().New().Interface()
		if err := jsonpb.Unmarshal([]byte(text), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("Unmarshal(%s) = %v, %v, want %v", text, got, err, want)
		}
	}
}

// Unmarshal accepts the same texts as protojson, except masks with changed keys, with the same result. Errors are short and have
// a position within the text.
func TestAgreesWithProtojson(t *testing.T) {
	t.Parallel()
	pieces := []string{
		`{`, `}`, `[`, `]`, `,`, `:`, `"`, `"user"`, `"status"`, `"ACTIVE"`, `"tags"`, `"metadata"`, `"a"`, `"requests"`, `1`, `null`, `true`, `\`, " ", "\n", "\xff", "é",
		`{"user":`, `{"requests":[`, `"status":"SUSPENDED"`, `"tags":["x"]`,
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 30).Draw(t, "text"), "")
		checkText(t, []byte(text))
	})
}

type failer interface {
	Errorf(format string, args ...any)
}

func checkText(t failer, text []byte) {
	want, got := &userv1.UpdateUsersRequest{}, &userv1.UpdateUsersRequest{}
	wantErr, err := protojson.Unmarshal(text, want), jsonpb.Unmarshal(text, got)
	switch {
	case err != nil && strings.Contains(err.Error(), "update_mask: must not name a key"):
	case wantErr == nil && (err != nil || !proto.Equal(got, want)):
		t.Errorf("Unmarshal(%q) = %v, %v, want %v", text, got, err, want)
	case err != nil && (len(err.Error()) > 1000 || !utf8.ValidString(err.Error())):
		t.Errorf("Unmarshal(%q) error = %q, want a short error with a position in the text", text, err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"requests":[{"user":{"status":"ACTIVE","tags":["a"],"metadata":{"a":"b"}},"updateMask":"email"}]}`))
	f.Add([]byte(`{"requests":[{"user":{"status":"ACTIVE","status":"`))
	f.Fuzz(func(t *testing.T, text []byte) { checkText(t, text) })
}
