package service_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

const (
	someID  = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	otherID = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
)

func TestCreateUserRejects(t *testing.T) {
	r := newRig(t)
	r.create(t, "Ann")
	_, err := r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "a\x00b", Email: "nobody"})
	wantInvalid(t, err, "username", "email")
	_, err = r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ＡＮＮ", Email: "other@example.org"})
	if e := wantReason(t, err, user.UsernameTaken); e.Metadata["holder_deleted"] != "false" {
		t.Errorf("metadata = %v", e.Metadata)
	}
	_, err = r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "other", Email: "ANN@EXAMPLE.org"})
	wantReason(t, err, user.EmailTaken)
}

func TestCreateUserValidateOnly(t *testing.T) {
	r := newRig(t)
	r.create(t, "Ann")
	head := r.feed.Head()
	req := &userv1.CreateUserRequest{
		Username: "Bob", Email: "bob@example.org", Tags: []string{"a"}, ValidateOnly: true, RequestId: someID,
	}
	for range 2 {
		res, err := r.CreateUser(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		want := &userv1.User{
			Username: "Bob", Email: "bob@example.org", Tags: []string{"a"}, Status: userv1.UserStatus_USER_STATUS_ACTIVE,
		}
		if !proto.Equal(res.GetUser(), want) {
			t.Errorf("CreateUser() = %v, want %v", res.GetUser(), want)
		}
	}
	if r.feed.Head() != head {
		t.Error("the log has new rows, want none")
	}
	_, err := r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ann", Email: "b@example.org", ValidateOnly: true})
	wantReason(t, err, user.UsernameTaken)
	req.ValidateOnly = false
	if _, err := r.CreateUser(t.Context(), req); err != nil {
		t.Errorf("reuse of the request id of a validate_only call: error = %v", err)
	}
}

func TestRequestIDs(t *testing.T) {
	r := newRig(t)
	req := func() *userv1.CreateUserRequest {
		return &userv1.CreateUserRequest{
			Username: "Ann", Email: "ann@example.org", RequestId: someID, Metadata: map[string]string{"a": "1", "b": "2", "c": "3"},
		}
	}
	alice := as(t.Context(), "alice")
	first, err := r.CreateUser(alice, req())
	if err != nil {
		t.Fatal(err)
	}
	again := req()
	again.RequestId = strings.ToUpper(someID)
	second, err := r.CreateUser(alice, again)
	if err != nil || !proto.Equal(first, second) {
		t.Errorf("repeated request = %v, %v, want %v", second, err, first)
	}
	other := req()
	other.Metadata["c"] = "4"
	_, err = r.CreateUser(alice, other)
	wantReason(t, err, user.RequestIDReused)
	_, err = r.CreateUser(as(t.Context(), "bob"), req())
	wantReason(t, err, user.UsernameTaken)
	if got := other.GetRequestId(); got != someID {
		t.Errorf("the request was modified: %q", got)
	}
	id := first.GetUser().GetUserId()
	if _, err := r.DeleteUser(alice, &userv1.DeleteUserRequest{UserId: id, RequestId: someID}); err != nil {
		t.Errorf("same id for another procedure: error = %v", err)
	}
	if _, err := r.DeleteUser(alice, &userv1.DeleteUserRequest{UserId: id, RequestId: someID}); err != nil {
		t.Errorf("repeated delete: error = %v", err)
	}
	page, err := r.store.Log(t.Context(), user.LogQuery{UserID: id, MaxRows: 10})
	if err != nil || len(page.Rows) != 2 {
		t.Fatalf("log has %d rows, %v", len(page.Rows), err)
	}
	if d := page.Rows[0].Details; d["actor"] != "alice" || d["request_id"] != someID {
		t.Errorf("details = %v", d)
	}
}

// filled returns a user with all fields set.
func filled() *userv1.User {
	return &userv1.User{
		Username: "Anna", Email: "anna@example.org", Status: userv1.UserStatus_USER_STATUS_INACTIVE,
		Tags: []string{"new"}, Metadata: map[string]string{"desk": "4", "a.b": "c"},
		// Output-only fields are ignored without a mask.
		Version: 99, Etag: "x", CreatedAt: &timestamppb.Timestamp{Nanos: -1},
	}
}

func TestUpdateUserMask(t *testing.T) {
	type want struct {
		username, email string
		status          userv1.UserStatus
		tags            []string
		metadata        map[string]string
	}
	const active, inactive = userv1.UserStatus_USER_STATUS_ACTIVE, userv1.UserStatus_USER_STATUS_INACTIVE
	vip, team := []string{"vip"}, map[string]string{"team": "red", "floor": "2"}
	for _, test := range []struct {
		name string
		user *userv1.User
		mask []string
		want want
	}{
		{"no mask", filled(), nil, want{"Anna", "anna@example.org", inactive, []string{"new"}, map[string]string{"desk": "4", "a.b": "c"}}},
		{"empty mask, one field", &userv1.User{Email: "x@example.org"}, []string{}, want{"Ann", "x@example.org", active, vip, team}},
		{"nothing named", &userv1.User{}, nil, want{"Ann", "Ann@example.org", active, vip, team}},
		{"one field", filled(), []string{"email"}, want{"Ann", "anna@example.org", active, vip, team}},
		{"one field twice", filled(), []string{"status", "status"}, want{"Ann", "Ann@example.org", inactive, vip, team}},
		{"everything", filled(), []string{"*"}, want{"Anna", "anna@example.org", inactive, []string{"new"}, map[string]string{"desk": "4", "a.b": "c"}}},
		{"cleared tags", &userv1.User{}, []string{"tags"}, want{"Ann", "Ann@example.org", active, nil, team}},
		{"cleared metadata", &userv1.User{}, []string{"metadata"}, want{"Ann", "Ann@example.org", active, vip, nil}},
		{"an entry", filled(), []string{"metadata.desk"}, want{"Ann", "Ann@example.org", active, vip, map[string]string{"team": "red", "floor": "2", "desk": "4"}}},
		{"an entry with a dot", filled(), []string{"metadata.a.b"}, want{"Ann", "Ann@example.org", active, vip, map[string]string{"team": "red", "floor": "2", "a.b": "c"}}},
		{"a removed entry", filled(), []string{"metadata.team", "metadata.none"}, want{"Ann", "Ann@example.org", active, vip, map[string]string{"floor": "2"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			made := r.create(t, "Ann", func(req *userv1.CreateUserRequest) { req.Tags, req.Metadata = vip, team })
			req := &userv1.UpdateUserRequest{UserId: made.GetUserId(), User: test.user}
			if test.mask != nil {
				req.UpdateMask = &fieldmaskpb.FieldMask{Paths: test.mask}
			}
			res, err := r.UpdateUser(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			u := res.GetUser()
			if u.GetUsername() != test.want.username || u.GetEmail() != test.want.email || u.GetStatus() != test.want.status ||
				!slices.Equal(u.GetTags(), test.want.tags) || !maps.Equal(u.GetMetadata(), test.want.metadata) {
				t.Errorf("UpdateUser() = %v, want %+v", u, test.want)
			}
			got, err := r.GetUser(t.Context(), &userv1.GetUserRequest{UserId: made.GetUserId()})
			if err != nil || !proto.Equal(got.GetUser(), u) {
				t.Errorf("UpdateUser() = %v, stored %v, %v", u, got, err)
			}
			changed := test.name != "nothing named"
			if (u.GetVersion() == 2) != changed || (u.GetEtag() != made.GetEtag()) != changed {
				t.Errorf("version %d, etag %s after %s", u.GetVersion(), u.GetEtag(), made.GetEtag())
			}
		})
	}
}

func TestUpdateUserRejects(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "Ann").GetUserId()
	for _, test := range []struct {
		name  string
		user  *userv1.User
		mask  []string
		wrong []string
		says  string
	}{
		{"no user", nil, nil, []string{"user"}, "must be set"},
		{"another user id", &userv1.User{UserId: id + 1}, nil, []string{"user.user_id"}, "equal to user_id"},
		{"bad values", &userv1.User{Username: "a\x00b", Email: "nobody"}, nil, []string{"user.username", "user.email"}, "RFC 8266"},
		{"unknown path", filled(), []string{"email", "nickname"}, []string{"update_mask"}, `unknown field "nickname"`},
		{"output-only path", filled(), []string{"version", "etag"}, []string{"update_mask", "update_mask"}, "output-only field etag"},
		{"path inside a field", filled(), []string{"tags.0"}, []string{"update_mask"}, "a mask may name"},
		{"empty path", filled(), []string{""}, []string{"update_mask"}, "a mask may name"},
		{"wildcard and another path", filled(), []string{"*", "email"}, []string{"update_mask"}, "only path"},
		{"metadata and one entry", filled(), []string{"metadata.desk", "metadata"}, []string{"update_mask"}, "both metadata and"},
		{"entry without a key", filled(), []string{"metadata."}, []string{"update_mask"}, "1 to 64 characters"},
		{"long key", filled(), []string{"metadata." + strings.Repeat("k", 65)}, []string{"update_mask"}, "1 to 64 characters"},
		{"key altered by JSON", &userv1.User{Metadata: map[string]string{"fooBar": "x"}}, []string{"metadata.foo_bar"}, []string{"update_mask"}, "name metadata instead"},
		{"cleared username and e-mail", &userv1.User{}, []string{"username", "email"}, []string{"user.email", "user.username"}, "cannot be cleared"},
		{"cleared status", &userv1.User{}, []string{"status"}, []string{"user.status"}, "cannot be cleared"},
		{"wildcard with an empty user", &userv1.User{}, []string{"*"}, []string{"user.email", "user.username", "user.status"}, "cannot be cleared"},
		{"several violations", &userv1.User{UserId: 1}, []string{"x", "status"}, []string{"user.user_id", "update_mask", "user.status"}, "equal to user_id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := &userv1.UpdateUserRequest{UserId: id, User: test.user}
			if test.mask != nil {
				req.UpdateMask = &fieldmaskpb.FieldMask{Paths: test.mask}
			}
			_, err := r.UpdateUser(t.Context(), req)
			if e := wantInvalid(t, err, test.wrong...); !strings.Contains(e.Violations[0].Message, test.says) {
				t.Errorf("message = %q, want %q in it", e.Violations[0].Message, test.says)
			}
		})
	}
}

func TestEtagMismatchHasChangedFields(t *testing.T) {
	r := newRig(t)
	made := r.create(t, "Ann")
	id := made.GetUserId()
	update := func(u *userv1.User, etag string) (*userv1.User, error) {
		res, err := r.UpdateUser(t.Context(), &userv1.UpdateUserRequest{UserId: id, User: u, Etag: etag})
		return res.GetUser(), err
	}
	second, err := update(&userv1.User{Tags: []string{"vip"}}, made.GetEtag())
	if err != nil {
		t.Fatal(err)
	}
	third, err := update(&userv1.User{Email: "a@example.org", Status: userv1.UserStatus_USER_STATUS_INACTIVE}, second.GetEtag())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ etag, want string }{
		{made.GetEtag(), "email,status,tags"},
		{second.GetEtag(), "email,status"},
	} {
		calls := map[string]func() error{
			"update": func() error { _, err := update(&userv1.User{Username: "Anna"}, test.etag); return err },
			"delete": func() error {
				_, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id, Etag: test.etag})
				return err
			},
			"update several": func() error {
				_, err := r.UpdateUsers(t.Context(), &userv1.UpdateUsersRequest{Atomic: true, Requests: []*userv1.UpdateUserRequest{
					{UserId: id, Etag: test.etag, User: &userv1.User{Username: "Anna"}},
				}})
				return err
			},
		}
		for name, call := range calls {
			e := wantReason(t, call(), user.EtagMismatch)
			if e.Metadata["changed_fields"] != test.want || e.Metadata["etag"] != third.GetEtag() || e.Code != user.Aborted {
				t.Errorf("%s with etag %s: metadata = %v", name, test.etag, e.Metadata)
			}
		}
	}
	_, err = update(&userv1.User{}, "no etag")
	e := wantReason(t, err, user.EtagMismatch)
	if _, ok := e.Metadata["changed_fields"]; ok || e.Metadata["etag"] != third.GetEtag() {
		t.Errorf("invalid etag: metadata = %v", e.Metadata)
	}
}

func TestDeleteAndUndelete(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.Retention = time.Hour })
	made := r.create(t, "Ann")
	id := made.GetUserId()
	gone, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id, Etag: made.GetEtag()})
	if err != nil {
		t.Fatal(err)
	}
	u := gone.GetUser()
	if at := u.GetDeletedAt().AsTime(); at.IsZero() || !u.GetPurgeAt().AsTime().Equal(at.Add(time.Hour)) || u.GetVersion() != 2 {
		t.Errorf("user = %v", u)
	}
	_, err = r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id})
	wantReason(t, err, user.UserDeleted)
	_, err = r.UpdateUser(t.Context(), &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}})
	wantReason(t, err, user.UserDeleted)
	_, err = r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ann", Email: "b@example.org"})
	if e := wantReason(t, err, user.UsernameTaken); e.Metadata["holder_deleted"] != "true" {
		t.Errorf("metadata = %v", e.Metadata)
	}
	_, err = r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: id, Etag: made.GetEtag()})
	if e := wantReason(t, err, user.EtagMismatch); e.Metadata["changed_fields"] != "deleted_at,purge_at" {
		t.Errorf("metadata = %v", e.Metadata)
	}
	back, err := r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: id, Etag: u.GetEtag()})
	if err != nil || back.GetUser().GetDeletedAt() != nil || back.GetUser().GetPurgeAt() != nil || back.GetUser().GetVersion() != 3 {
		t.Errorf("response = %v, %v", back, err)
	}
	_, err = r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: id})
	wantReason(t, err, user.UserNotDeleted)
}

// Unexpected store errors reach the interceptor unchanged.
func TestUnexpectedStoreErrorsAreUnchanged(t *testing.T) {
	broken := errors.New("broken")
	base := newRig(t)
	r := newRigOver(t, spyStore{Store: base.store, batches: func(user.Batch) ([]user.Result, error, bool) {
		return nil, broken, true
	}}, base.clock)
	_, err := r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "Ann", Email: "ann@example.org"})
	if !errors.Is(err, broken) {
		t.Errorf("CreateUser() error = %v", err)
	}
	_, err = r.UpdateUsers(t.Context(), &userv1.UpdateUsersRequest{Atomic: true, Requests: []*userv1.UpdateUserRequest{
		{UserId: 7, User: &userv1.User{}},
	}})
	if !errors.Is(err, broken) {
		t.Errorf("UpdateUsers() error = %v", err)
	}
}

// All RPCs store names without surrounding white space and invisible characters.
func TestNamesAreSanitized(t *testing.T) {
	r := newRig(t)
	const name, email = " \u200bAnn\u00ad Miller\u3000\n", "\ufeff Ann@exam\u00adple.org\r\n"
	check := func(call string, got *userv1.User, username, email string) {
		t.Helper()
		if got.GetUsername() != username || got.GetEmail() != email {
			t.Errorf("%s = %q, %q, want %q, %q", call, got.GetUsername(), got.GetEmail(), username, email)
		}
	}
	valid, err := r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: name, Email: email, ValidateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	check("CreateUser, validated", valid.GetUser(), "Ann Miller", "Ann@example.org")
	created, err := r.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: name, Email: email})
	if err != nil {
		t.Fatal(err)
	}
	check("CreateUser", created.GetUser(), "Ann Miller", "Ann@example.org")
	updated, err := r.UpdateUser(t.Context(), &userv1.UpdateUserRequest{
		UserId: created.GetUser().GetUserId(), User: &userv1.User{Username: "\u202eBob\u202c ", Email: "bob@example.org\u2060\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	check("UpdateUser", updated.GetUser(), "Bob", "bob@example.org")
	imported, err := r.CreateUsers(t.Context(), &userv1.CreateUsersRequest{
		ConflictPolicy: userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE,
		Requests:       []*userv1.CreateUserRequest{{Username: "BOB\u200d", Email: "\tBOB@example.org"}, {Username: "\u3164Cid\u3164", Email: "cid@example.org "}},
	})
	if err != nil {
		t.Fatal(err)
	}
	check("CreateUsers, updating", imported.GetResults()[0].GetUser(), "BOB", "BOB@example.org")
	check("CreateUsers, creating", imported.GetResults()[1].GetUser(), "Cid", "cid@example.org")
	log, err := r.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range log.GetActivities() {
		for key, value := range row.GetDetails() {
			if strings.ContainsAny(value, "\u200b\u00ad\n\r\ufeff\u202e\u2060\u200d\u3164") {
				t.Errorf("row %d: %s = %q", row.GetActivityId(), key, value)
			}
		}
	}
}
