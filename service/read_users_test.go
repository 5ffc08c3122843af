package service_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

func TestGetUserReturnsAllFields(t *testing.T) {
	r := newRig(t)
	made := r.create(t, "Ann", func(req *userv1.CreateUserRequest) {
		req.Tags = []string{"b", "a"}
		req.Metadata = map[string]string{"team": "red"}
	})
	got, err := r.GetUser(t.Context(), &userv1.GetUserRequest{UserId: made.GetUserId()})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got.GetUser(), made) {
		t.Errorf("GetUser() = %v, want %v", got.GetUser(), made)
	}
	u := got.GetUser()
	if u.GetUsername() != "Ann" || u.GetEmail() != "Ann@example.org" || u.GetStatus() != userv1.UserStatus_USER_STATUS_ACTIVE ||
		!u.GetCreatedAt().AsTime().Equal(started) || u.GetVersion() != 1 || u.GetEtag() == "" || u.GetUserId() <= 0 ||
		!slices.Equal(u.GetTags(), []string{"b", "a"}) || u.GetMetadata()["team"] != "red" || u.GetDeletedAt() != nil {
		t.Errorf("user = %v", u)
	}
}

func TestGetUserFields(t *testing.T) {
	r := newRig(t)
	id := r.create(t, "Ann").GetUserId()
	for _, test := range []struct {
		name   string
		fields []string
		want   string
		wrong  []string
	}{
		{name: "one", fields: []string{"username"}, want: `{"username":"Ann"}`},
		{name: "twice", fields: []string{"email", "username", "email"}, want: `{"username":"Ann","email":"Ann@example.org"}`},
		{name: "unset field", fields: []string{"deleted_at"}, want: `{}`},
		{name: "JSON name", fields: []string{"deletedAt", "username"}, want: `{"username":"Ann"}`},
		{name: "unknown", fields: []string{"username", "password", "UserId"}, wrong: []string{"fields[1]", "fields[2]"}},
		{name: "empty name", fields: []string{""}, wrong: []string{"fields[0]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := r.GetUser(t.Context(), &userv1.GetUserRequest{UserId: id, Fields: test.fields})
			if test.wrong != nil {
				e := wantInvalid(t, err, test.wrong...)
				if !strings.Contains(e.Violations[0].Message, "user_id, username, email") {
					t.Errorf("violation does not list the fields: %s", e.Violations[0].Message)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := new(userv1.User)
			if err := protojson.Unmarshal([]byte(test.want), want); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got.GetUser(), want) {
				t.Errorf("GetUser() = %v, want %v", got.GetUser(), want)
			}
		})
	}
}

func TestGetUserNotFound(t *testing.T) {
	_, err := newRig(t).GetUser(t.Context(), &userv1.GetUserRequest{UserId: 7})
	if e := wantReason(t, err, user.UserNotFound); e.Metadata["user_id"] != "7" {
		t.Errorf("metadata = %v", e.Metadata)
	}
}

func TestBatchGetUsersKeepsOrderAndReportsMissing(t *testing.T) {
	r := newRig(t)
	ann, bob := r.create(t, "Ann").GetUserId(), r.create(t, "Bob").GetUserId()
	res, err := r.BatchGetUsers(t.Context(), &userv1.BatchGetUsersRequest{
		UserIds: []int64{3, bob, 1, ann}, Fields: []string{"user_id"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &userv1.BatchGetUsersResponse{
		Users: []*userv1.User{{UserId: bob}, {UserId: ann}}, MissingUserIds: []int64{3, 1},
	}
	if !proto.Equal(res, want) {
		t.Errorf("BatchGetUsers() = %v, want %v", res, want)
	}
	_, err = r.BatchGetUsers(t.Context(), &userv1.BatchGetUsersRequest{UserIds: []int64{ann}, Fields: []string{"x"}})
	wantInvalid(t, err, "fields[0]")
}

func TestBatchGetUsersFitsMessageLimit(t *testing.T) {
	const limit = 8 << 10
	r := newRig(t, func(o *service.Options) { o.MaxMessageBytes = limit })
	var ids []int64
	for _, name := range []string{"ann", "bob", "cem", "dan", "eve", "fay", "gus", "hal", "ian", "joe"} {
		ids = append(ids, r.create(t, name, func(req *userv1.CreateUserRequest) {
			req.Metadata = map[string]string{"note": strings.Repeat("x", 1000)}
		}).GetUserId())
	}
	missing := int64(5)
	asked := append([]int64{missing}, ids...)
	received := 0
	for len(asked) > 0 {
		res, err := r.BatchGetUsers(t.Context(), &userv1.BatchGetUsersRequest{UserIds: asked})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(res); size > limit {
			t.Errorf("response has %d bytes", size)
		}
		for _, u := range res.GetUsers() {
			if u.GetUserId() != ids[received] {
				t.Errorf("users[%d] = %d, want %d", received, u.GetUserId(), ids[received])
			}
			received++
		}
		if len(res.GetUsers()) == 0 {
			t.Fatal("response without users")
		}
		asked = res.GetLeftOverUserIds()
	}
	if received != len(ids) {
		t.Errorf("received %d users of %d", received, len(ids))
	}
}

// directory creates the users of the list tests, one per hour.
func directory(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	ids := make(map[string]int64)
	for _, u := range []struct {
		name, email string
		tags        []string
		metadata    map[string]string
	}{
		{"Dora", "dora@example.org", nil, nil},
		{"Ann Miller", "am@example.org", []string{"vip"}, nil},
		{"ANNA", "Anna@Example.com", []string{"vip", "2026"}, map[string]string{"team": "red", "cost.center": "42"}},
		{"Ann", "ann@example.org", nil, map[string]string{"team": "blue", "full name": ""}},
		{"Bob", "bob@MÜNCHEN.example", []string{"new"}, map[string]string{"team": "red"}},
		{"Åke", "ake@example.org", nil, nil},
	} {
		ids[u.name] = r.create(t, u.name, func(req *userv1.CreateUserRequest) {
			req.Email, req.Tags, req.Metadata = u.email, u.tags, u.metadata
		}).GetUserId()
		r.clock.move(time.Hour)
	}
	for _, update := range []struct {
		name   string
		status userv1.UserStatus
	}{
		{"Bob", userv1.UserStatus_USER_STATUS_SUSPENDED},
		{"Dora", userv1.UserStatus_USER_STATUS_INACTIVE},
	} {
		_, err := r.UpdateUser(t.Context(), &userv1.UpdateUserRequest{UserId: ids[update.name], User: &userv1.User{Status: update.status}})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.clock.move(time.Hour)
	if _, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: ids["Åke"]}); err != nil {
		t.Fatal(err)
	}
	return r
}

// list reads all pages and returns the joined usernames.
func (r *rig) list(t *testing.T, req *userv1.ListUsersRequest) string {
	t.Helper()
	var names []string
	for range 100 {
		res, err := r.ListUsers(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range res.GetUsers() {
			names = append(names, u.GetUsername())
		}
		if req = proto.CloneOf(req); res.GetNextPageToken() == "" {
			return strings.Join(names, ",")
		}
		req.PageToken = res.GetNextPageToken()
	}
	t.Fatal("too many pages")
	return ""
}

func TestListUsersFilter(t *testing.T) {
	r := directory(t)
	tests := []struct{ filter, want string }{
		{``, "Dora,Ann Miller,ANNA,Ann,Bob"},
		{`  `, "Dora,Ann Miller,ANNA,Ann,Bob"},
		{`status = ACTIVE`, "Ann Miller,ANNA,Ann"},
		{`status = "USER_STATUS_SUSPENDED"`, "Bob"},
		{`status != ACTIVE`, "Dora,Bob"},
		{`NOT status = ACTIVE`, "Dora,Bob"},
		{`-status = ACTIVE`, "Dora,Bob"},
		{`status = INACTIVE OR status = SUSPENDED`, "Dora,Bob"},
		{`tags:"vip"`, "Ann Miller,ANNA"},
		{`tags:vip AND tags:"2026"`, "ANNA"},
		{`tags:*`, "Ann Miller,ANNA,Bob"},
		{`tags:"VIP"`, ""},
		{`username = "ann"`, "Ann"},
		{`username = "ＡＮＮ  miller"`, "Ann Miller"},
		{`username = ann`, "Ann"},
		{`username = "nobody"`, ""},
		{`username = "ann*"`, "Ann,Ann Miller,ANNA"},
		{`username = "ann *"`, "Ann Miller"},
		{`username = "*"`, "Dora,Ann Miller,ANNA,Ann,Bob"},
		{`username != "ann*"`, "Dora,Bob"},
		{`username = "ann" AND status = INACTIVE`, ""},
		{`username = "ann" AND username = "bob"`, ""},
		{`username = "ann" OR username = "bob"`, "Ann,Bob"},
		{`(username = "ann*" AND tags:vip)`, "Ann Miller,ANNA"},
		{`username = "åke"`, ""},
		{`email = "ANN@example.org"`, "Ann"},
		{`email = "a*"`, "Ann Miller,Ann,ANNA"},
		{`email = "anna@example.*"`, "ANNA"},
		{`email = "bob@münchen.example"`, "Bob"},
		{`email = "bob@münchen.*"`, "Bob"},
		{`email = "ann@example.org" AND username = "bob*"`, ""},
		{`search = "ann"`, "Ann Miller,ANNA,Ann"},
		{`search = "ＥXAMPLE.ORG"`, "Dora,Ann Miller,Ann"},
		{`search = "n mi"`, "Ann Miller"},
		{`search = "a@example"`, "Dora,ANNA"},
		{`search = "nobody"`, ""},
		{`search != "ann"`, "Dora,Bob"},
		{`search = "ann" AND status = ACTIVE AND tags:vip`, "Ann Miller,ANNA"},
		{`search = "miller" OR search = "bob"`, "Ann Miller,Bob"},
		{`username = "*LER"`, "Ann Miller"},
		{`username = "*n mil*"`, "Ann Miller"},
		{`username = "*org"`, ""},
		{`username != "*ann*"`, "Dora,Bob"},
		{`email = "*@example.org"`, "Dora,Ann Miller,Ann"},
		{`email = "*@MÜNCHEN.example"`, "Bob"},
		{`email = "*.ORG"`, "Dora,Ann Miller,Ann"},
		{`email = "*na@ex*" AND tags:vip`, "ANNA"},
		{`username = "ann*" OR email = "bob*"`, "Ann Miller,ANNA,Ann,Bob"},
		{`username = "ann" OR tags:new`, "Ann,Bob"},
		{`created_at >= "2026-03-01T15:00:00Z"`, "Ann,Bob"},
		{`created_at > timestamp("2026-03-01T15:00:00Z")`, "Bob"},
		{`created_at = "2026-03-01T14:00:00+01:00"`, "Ann Miller"},
		{`created_at != "2026-03-01T14:00:00+01:00"`, "Dora,ANNA,Ann,Bob"},
		{`created_at < "2026-03-01T13:00:00Z" OR created_at <= "2026-03-01T12:00:00Z"`, "Dora"},
		{`updated_at > "2026-03-01T17:00:00Z"`, "Bob,Dora"},
		{`updatedAt >= "2026-03-01T15:00:00Z"`, "Ann,Bob,Dora"},
		{`updated_at <= "2026-03-01T14:00:00Z"`, "Ann Miller,ANNA"},
		{`updated_at < "2026-03-01T14:00:00Z"`, "Ann Miller"},
		{`updated_at = "2026-03-01T14:00:00Z"`, "ANNA"},
		{`updated_at = "2026-03-01T14:00:00.5Z"`, ""},
		{`updated_at > "2036-03-01T14:00:00Z"`, ""},
		{`updated_at < "2016-03-01T14:00:00Z"`, ""},
		{`updated_at > "2026-03-01T13:00:00Z" AND updated_at < "2026-03-01T16:00:00Z"`, "ANNA,Ann"},
		{`updated_at > "2026-03-01T13:00:00Z" AND status != ACTIVE`, "Dora,Bob"},
		{`last_activity_id > 4`, "Bob,Dora"},
		{`lastActivityId >= "4"`, "Ann,Bob,Dora"},
		{`last_activity_id = 3`, "ANNA"},
		{`last_activity_id < 4 AND last_activity_id > 2`, "ANNA"},
		{`last_activity_id != 3`, "Dora,Ann Miller,Ann,Bob"},
		{`last_activity_id <= 9223372036854775807`, "Dora,Ann Miller,ANNA,Ann,Bob"},
		{`last_activity_id > 9223372036854775807`, ""},
		{`last_activity_id < 0`, ""},
		{`last_activity_id > 2 AND tags:vip`, "ANNA"},
		{`createdAt > "2026-03-01T15:00:00Z"`, "Bob"},
		{`metadata.team = "red"`, "ANNA,Bob"},
		{`metadata.team = red AND tags:new`, "Bob"},
		{`metadata.team != "red"`, "Dora,Ann Miller,Ann"},
		{`metadata.team:"blue"`, "Ann"},
		{`metadata.team:*`, "ANNA,Ann,Bob"},
		{`metadata:"team"`, "ANNA,Ann,Bob"},
		{`metadata:team AND NOT metadata.team = red`, "Ann"},
		{`metadata:*`, "ANNA,Ann,Bob"},
		{`metadata:"re"`, ""},
		{`metadata.cost.center = "42"`, "ANNA"},
		{`metadata."cost.center" = "42"`, "ANNA"},
		{`metadata."full name":*`, "Ann"},
		{`metadata."full name" = ""`, "Ann"},
		{`metadata.team = "blue" OR tags:"2026"`, "ANNA,Ann"},
		{`tags:new OR username = "dora"`, "Dora,Bob"},
		{`status = ACTIVE AND (tags:vip OR username = "bob")`, "Ann Miller,ANNA"},
	}
	for _, pruned := range []int{0, 2, 100} { // a filter on updated_at reads the log
		if pruned > 0 {
			r.prune(t, 0, pruned)
		}
		for _, test := range tests {
			for _, size := range []int32{0, 1, 2} {
				if got := r.list(t, &userv1.ListUsersRequest{Filter: test.filter, PageSize: size}); got != test.want {
					t.Errorf("ListUsers(%s) with pages of %d, %d rows pruned = %s, want %s", test.filter, size, pruned, got, test.want)
				}
			}
		}
	}
}

func TestListUsersRejectsFilter(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct{ filter, says string }{
		{`status`, `not "status" alone`},
		{`"ann"`, `not "ann" alone`},
		{`status = DELETED`, `ACTIVE, INACTIVE or SUSPENDED, not with "DELETED"`},
		{`status = UNSPECIFIED`, "ACTIVE, INACTIVE or SUSPENDED"},
		{`status < ACTIVE`, "= or !="},
		{`status:ACTIVE`, "= or !="},
		{`tags = "vip"`, `tags:"tag"`},
		{`tags:2026`, "quotes"},
		{`username > "a"`, "= or !="},
		{`username:"a"`, "= or !="},
		{`username = 42`, "quotes"},
		{`username = "a"`, "at least 3 characters"},
		{`email = "nobody"`, "e-mail address"},
		{`email = "bob@mün*"`, "non-ASCII"},
		{`username = "*nn"`, "at least 3 bytes"},
		{`email = "*ü*"`, "at least 3 bytes"},
		{`email = "*ünchen.de"`, "non-ASCII"},
		{`search = "an"`, "at least 3 bytes"},
		{`search = "ann*"`, "without *"},
		{`search = "*"`, "without *"},
		{`search = 42`, "quotes"},
		{`search:"ann"`, "= or !="},
		{`tags:"vi*"`, "whole tag"},
		{`metadata = "team"`, `metadata:"key"`},
		{`metadata:2026`, "quotes"},
		{`metadata:"te*"`, "whole key"},
		{`metadata.team = "re*"`, "whole value"},
		{`metadata.team = "*"`, "metadata.key:*"},
		{`metadata.team = 7`, "quotes"},
		{`metadata.team > "a"`, "=, != or :"},
		{`status.team = "red"`, `not "status.team"`},
		{`last_activity_id = "x"`, "integer"},
		{`last_activity_id > -1`, "integer"},
		{`last_activity_id > 1.5`, "integer"},
		{`last_activity_id:1`, "not :"},
		{`user_id = 7`, `not "user_id"`},
		{`1 = 1`, "not a number"},
		{`created_at = "yesterday"`, "RFC 3339"},
		{`created_at > 2026`, "RFC 3339"},
		{`created_at:"*"`, "not :"},
		{`created_at > duration("1s")`, "RFC 3339"},
		{`status = ACTIVE tags:vip`, "AND or OR"},
		{`member("x")`, `must not call "member"`},
		{`status = ACTIVE AND`, "at character"},
		{`status = `, "unexpected end"},
		{`(status = ACTIVE`, "at character"},
		{`username = "ann`, "unterminated string"},
		{`username = "a\qb"`, "at character"},
		{"status = \xff", "AIP-160"},
		{strings.Repeat("(", 2000), "at character"},
		{strings.Repeat("a(", 1000), "at character"},
		{strings.Repeat("x", 300) + " = 1", "…"},
	} {
		_, err := r.ListUsers(t.Context(), &userv1.ListUsersRequest{Filter: test.filter})
		e := wantInvalid(t, err, "filter")
		if message := e.Violations[0].Message; !strings.Contains(message, test.says) || len(message) > 300 {
			t.Errorf("filter %.40s: message = %q, want at most 300 bytes with %q", test.filter, message, test.says)
		}
	}
}

func TestListUsersOrder(t *testing.T) {
	r := directory(t)
	for _, test := range []struct {
		order, filter string
		deleted       bool
		want          string
	}{
		{order: "user_id desc", want: "Bob,Ann,ANNA,Ann Miller,Dora"},
		{order: "username", want: "Ann,Ann Miller,ANNA,Bob,Dora"},
		{order: " username  desc ", want: "Dora,Bob,ANNA,Ann Miller,Ann"},
		{order: "email asc", want: "Ann Miller,Ann,ANNA,Bob,Dora"},
		{order: "updated_at", want: "Ann Miller,ANNA,Ann,Bob,Dora"},
		{order: "updated_at desc", want: "Dora,Bob,Ann,ANNA,Ann Miller"},
		{order: "lastActivityId", want: "Ann Miller,ANNA,Ann,Bob,Dora"},
		{order: "created_at desc", want: "Bob,Ann,ANNA,Ann Miller,Dora"},
		{order: "createdAt", filter: `tags:vip OR tags:new`, want: "Ann Miller,ANNA,Bob"},
		{order: "username", filter: `created_at > "2026-03-01T12:00:00Z" AND created_at <= "2026-03-01T15:00:00Z"`, want: "Ann,Ann Miller,ANNA"},
		{filter: `created_at > "2026-03-01T12:00:00Z" AND tags:vip`, want: "Ann Miller,ANNA"},
		{order: "email", filter: `last_activity_id > 3`, want: "Ann,Bob,Dora"},
		{order: "username desc", filter: `username = "ann*"`, want: "ANNA,Ann Miller,Ann"},
		{order: "user_id", filter: `username = "ann*"`, want: "Ann Miller,ANNA,Ann"},
		{order: "username desc", filter: `username = "ann"`, want: "Ann"},
		{order: "email", filter: `username = "ann*"`, want: "Ann Miller,Ann,ANNA"},
		{order: "email desc", filter: `search = "ann"`, want: "ANNA,Ann,Ann Miller"},
		{order: "username", filter: `search = "example" AND username = "a*"`, want: "Ann,Ann Miller,ANNA"},
		{filter: `email = "a*"`, want: "Ann Miller,Ann,ANNA"},
		{order: "username", deleted: true, want: "Ann,Ann Miller,ANNA,Bob,Dora,Åke"},
		{filter: `username = "åke"`, deleted: true, want: "Åke"},
	} {
		for _, size := range []int32{0, 1, 2} {
			got := r.list(t, &userv1.ListUsersRequest{
				OrderBy: test.order, Filter: test.filter, ShowDeleted: test.deleted, PageSize: size,
			})
			if got != test.want {
				t.Errorf("ListUsers(%s, %s) with pages of %d = %s, want %s", test.order, test.filter, size, got, test.want)
			}
		}
	}
	for _, order := range []string{"name", "username,email", "username DESC", "username desc desc", "desc"} {
		_, err := r.ListUsers(t.Context(), &userv1.ListUsersRequest{OrderBy: order})
		wantInvalid(t, err, "order_by")
	}
}

func TestListUsersCount(t *testing.T) {
	r := directory(t)
	for _, test := range []struct {
		filter  string
		deleted bool
		want    int32
	}{
		{"", false, 5},
		{"", true, 6},
		{`tags:vip`, false, 2},
		{`search = "example.org" AND NOT tags:vip`, false, 2},
		{`search = "example.org" AND NOT tags:vip`, true, 3},
		{`username = "ann"`, false, 1},
		{`username = "nobody"`, false, 0},
		{`NOT status = ACTIVE`, false, 2},
		{`created_at > "2026-03-01T12:00:00Z"`, false, 4},
	} {
		req := &userv1.ListUsersRequest{Filter: test.filter, ShowDeleted: test.deleted, Count: true, PageSize: 1}
		for more := true; more; {
			res, err := r.ListUsers(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if res.GetTotalSize() != test.want || res.GetTotalSizeEstimated() {
				t.Errorf("ListUsers(%s) with count: total_size = %d, estimated = %t, want %d", test.filter, res.GetTotalSize(), res.GetTotalSizeEstimated(), test.want)
			}
			req.PageToken = res.GetNextPageToken()
			more = req.GetPageToken() != ""
		}
	}
	if res, err := r.ListUsers(t.Context(), &userv1.ListUsersRequest{}); err != nil || res.GetTotalSize() != 0 {
		t.Errorf("ListUsers() without count: total_size = %d, %v, want 0", res.GetTotalSize(), err)
	}
}

func TestListUsersPageToken(t *testing.T) {
	r := directory(t)
	first := &userv1.ListUsersRequest{PageSize: 2, Filter: `username = "ann*"`, OrderBy: "username"}
	res, err := r.ListUsers(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	token := res.GetNextPageToken()
	next := func(change func(*userv1.ListUsersRequest)) error {
		req := proto.CloneOf(first)
		req.PageToken = token
		change(req)
		_, err := r.ListUsers(t.Context(), req)
		return err
	}
	if err := next(func(req *userv1.ListUsersRequest) { req.PageSize = 1000 }); err != nil {
		t.Errorf("ListUsers() with another page size: error = %v", err)
	}
	for name, change := range map[string]func(*userv1.ListUsersRequest){
		"another filter":     func(req *userv1.ListUsersRequest) { req.Filter = `username = "an*"` },
		"another order":      func(req *userv1.ListUsersRequest) { req.OrderBy = "username desc" },
		"with deleted users": func(req *userv1.ListUsersRequest) { req.ShowDeleted = true },
		"cut":                func(req *userv1.ListUsersRequest) { req.PageToken = token[:len(token)-2] },
		"changed":            func(req *userv1.ListUsersRequest) { req.PageToken = string(token[0]^1) + token[1:] },
		"longer":             func(req *userv1.ListUsersRequest) { req.PageToken = token + token },
		"garbage":            func(req *userv1.ListUsersRequest) { req.PageToken = "%%%" },
		"short":              func(req *userv1.ListUsersRequest) { req.PageToken = "AAAA" },
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, next(change), "page_token") })
	}
}

func TestListUsersUsesIndexForNames(t *testing.T) {
	r := directory(t)
	var queries []user.ListQuery
	spied := newRigOver(t, spyStore{Store: r.store, queries: &queries}, r.clock)
	for _, test := range []struct {
		filter, order string
		want          user.ListQuery
	}{
		{`status = ACTIVE AND username = "Ann"`, "updated_at desc", user.ListQuery{Order: user.ByUsername, Prefix: "ann", MaxScanned: 1}},
		{`username = "A*" AND email = "Ann@example.org"`, "", user.ListQuery{Order: user.ByEmail, Prefix: "ann@example.org", MaxScanned: 1}},
		{`username = "An*" AND email = "Ann*"`, "", user.ListQuery{Order: user.ByEmail, Prefix: "ann", MaxScanned: 10_000}},
		{`username = "An*"`, "username desc", user.ListQuery{Order: user.ByUsername, Desc: true, Prefix: "an", MaxScanned: 10_000}},
		{`username = "An*"`, "user_id", user.ListQuery{Order: user.ByID, MaxScanned: 10_000}},
		{`NOT username = "Ann"`, "", user.ListQuery{Order: user.ByID, MaxScanned: 10_000}},
		{`username = "Ann" OR status = ACTIVE`, "", user.ListQuery{Order: user.ByID, MaxScanned: 10_000}},
		{`username = "*"`, "", user.ListQuery{Order: user.ByID, MaxScanned: 10_000}},
		{`created_at > "2026-03-01T15:00:00Z"`, "", user.ListQuery{Order: user.ByCreated, MaxScanned: 10_000}},
		{`last_activity_id > 4`, "", user.ListQuery{Order: user.ByLastActivity, AfterActivity: 4, MaxScanned: 10_000}},
		{
			`last_activity_id >= 4 AND last_activity_id > 1 AND last_activity_id < 9`, "username",
			user.ListQuery{Order: user.ByUsername, AfterActivity: 3, BeforeActivity: 9, MaxScanned: 10_000},
		},
		{`updated_at >= "2026-03-01T15:00:00Z"`, "", user.ListQuery{Order: user.ByLastActivity, AfterActivity: 3, MaxScanned: 10_000}},
		{`updated_at < "2026-03-01T15:00:00Z"`, "", user.ListQuery{Order: user.ByLastActivity, BeforeActivity: 5, MaxScanned: 10_000}},
		{`updated_at < "2016-03-01T15:00:00Z"`, "", user.ListQuery{Order: user.ByLastActivity, BeforeActivity: 1, MaxScanned: 10_000}},
		{`updated_at > "2026-03-01T15:00:00Z" OR status = ACTIVE`, "", user.ListQuery{Order: user.ByID, MaxScanned: 10_000}},
		{`NOT updated_at > "2026-03-01T15:00:00Z"`, "", user.ListQuery{Order: user.ByID, MaxScanned: 10_000}},
	} {
		queries = nil
		_, err := spied.ListUsers(t.Context(), &userv1.ListUsersRequest{Filter: test.filter, OrderBy: test.order, PageSize: 3})
		if err != nil || len(queries) != 1 {
			t.Fatalf("filter %s: error = %v, %d queries", test.filter, err, len(queries))
		}
		got := queries[0]
		if got.Order != test.want.Order || got.Desc != test.want.Desc || got.Prefix != test.want.Prefix ||
			got.AfterActivity != test.want.AfterActivity || got.BeforeActivity != test.want.BeforeActivity ||
			got.MaxScanned != test.want.MaxScanned || got.MaxUsers != 3 || got.MaxBytes <= 0 {
			t.Errorf("filter %s ordered by %q: query = %+v", test.filter, test.order, got)
		}
	}
}
