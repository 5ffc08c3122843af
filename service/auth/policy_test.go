package auth

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// The table has exactly the RPCs of the service, and its conditions name existing fields.
func TestPolicyCoversTheService(t *testing.T) {
	used := make(map[Permission]bool)
	found := 0
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		r := table[service+string(method.Name())]
		if r == nil {
			t.Errorf("%s is not in the policy", method.Name())
			continue
		}
		found++
		if r.access != permitted || r.needs.bit() == 0 {
			t.Errorf("%s needs no permission", method.Name())
		}
		used[r.needs] = true
		for _, c := range r.also {
			used[c.needs] = true
			if c.needs.bit() == 0 || len(c.set)+len(c.unset) == 0 {
				t.Errorf("%s: condition without permission", method.Name())
			}
			for _, name := range append(append([]protoreflect.Name{}, c.set...), c.unset...) {
				if method.Input().Fields().ByName(name) == nil {
					t.Errorf("%s has no field %s", method.Name(), name)
				}
			}
		}
	}
	if want := found + 4; len(table) != want || len(rows) != want {
		t.Errorf("%d rows, %d distinct, want %d", len(rows), len(table), want)
	}
	for _, p := range permissionBits {
		if !used[p] {
			t.Errorf("no row needs %s", p)
		}
	}
}

func TestAuthorizeOtherServices(t *testing.T) {
	const reflect = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	anonymous, ann, all := Caller{}, Caller{Subject: "ann", Kind: Token}, FullAccess()
	for _, row := range []struct {
		name       string
		reflection Reflection
		caller     Caller
		procedure  string
		reason     user.Reason
	}{
		{"health", ReflectionOff, anonymous, "/grpc.health.v1.Health/Check", ""},
		{"health, watched", ReflectionOff, anonymous, "/grpc.health.v1.Health/Watch", ""},
		{"reflection that is off", ReflectionOff, all, reflect, user.PermissionMissing},
		{"reflection for callers, anonymous", ReflectionCallers, anonymous, reflect, user.CredentialsMissing},
		{"reflection for callers, a caller", ReflectionCallers, ann, reflect, ""},
		{"reflection for callers, without authentication", ReflectionCallers, all, reflect, ""},
		{"open reflection", ReflectionOpen, anonymous, reflect, ""},
		{"unknown procedure", ReflectionOpen, all, "/user.v1.UserService/DropUsers", user.PermissionMissing},
		{"another spelling", ReflectionOpen, all, "/user.v1.UserService/getUser", user.PermissionMissing},
		{"nothing", ReflectionOpen, all, "", user.PermissionMissing},
	} {
		err := NewPolicy(row.reflection).Authorize(WithCaller(t.Context(), row.caller), row.procedure)
		if (err == nil) != (row.reason == "") || err != nil && !user.HasReason(err, row.reason) {
			t.Errorf("%s: got %v", row.name, err)
		}
	}
}

func TestAuthorizeMessage(t *testing.T) {
	const active = userv1.UserStatus_USER_STATUS_ACTIVE
	for _, row := range []struct {
		name      string
		procedure string
		message   any
		needs     Permission // in addition to that of the procedure; empty: none
	}{
		{"a user's log", userv1connect.UserServiceStreamUserActivitiesProcedure, &userv1.StreamUserActivitiesRequest{UserId: 1}, ""},
		{"the whole log", userv1connect.UserServiceStreamUserActivitiesProcedure, &userv1.StreamUserActivitiesRequest{}, ActivitiesReadAll},
		{"a user's log, paged", userv1connect.UserServiceListUserActivitiesProcedure, &userv1.ListUserActivitiesRequest{UserId: 1}, ""},
		{"the whole log, paged", userv1connect.UserServiceListUserActivitiesProcedure, &userv1.ListUserActivitiesRequest{}, ActivitiesReadAll},
		{"users", userv1connect.UserServiceListUsersProcedure, &userv1.ListUsersRequest{}, ""},
		{"deleted users", userv1connect.UserServiceListUsersProcedure, &userv1.ListUsersRequest{ShowDeleted: true}, UsersReadDeleted},
		{"watching some", userv1connect.UserServiceWatchUserStatusProcedure, &userv1.WatchUserStatusRequest{UserIds: []int64{1}}, ""},
		{"watching all", userv1connect.UserServiceWatchUserStatusProcedure, &userv1.WatchUserStatusRequest{All: true}, UsersWatchAll},
		{"watching all and some", userv1connect.UserServiceWatchUserStatusProcedure, &userv1.WatchUserStatusRequest{UserIds: []int64{1}, All: true}, UsersWatchAll},
		{"watching users", userv1connect.UserServiceWatchUsersProcedure, &userv1.WatchUsersRequest{}, ""},
		{"watching deleted users", userv1connect.UserServiceWatchUsersProcedure, &userv1.WatchUsersRequest{ShowDeleted: true}, UsersReadDeleted},
		{"following", userv1connect.UserServiceSyncUserStatusProcedure, &userv1.UserStatusUpdate{UserId: 1}, ""},
		{"following everybody", userv1connect.UserServiceSyncUserStatusProcedure, &userv1.UserStatusUpdate{}, UsersWatchAll},
		{"changing", userv1connect.UserServiceSyncUserStatusProcedure, &userv1.UserStatusUpdate{UserId: 1, Status: active}, StatusWrite},
		{"status without a user", userv1connect.UserServiceSyncUserStatusProcedure, &userv1.UserStatusUpdate{Status: active}, StatusWrite},
		{"an unknown status", userv1connect.UserServiceSyncUserStatusProcedure, &userv1.UserStatusUpdate{UserId: 1, Status: -9}, StatusWrite},
		{"a message of another kind", userv1connect.UserServiceListUsersProcedure, &userv1.GetUserRequest{}, UsersReadDeleted},
		{"no message", userv1connect.UserServiceListUsersProcedure, "show_deleted", UsersReadDeleted},
	} {
		caller := Caller{Subject: "ann", Kind: Token, Permissions: AllPermissions()}
		if err := AuthorizeMessage(WithCaller(t.Context(), caller), row.procedure, row.message); err != nil {
			t.Errorf("%s with all permissions: AuthorizeMessage() = %v, want nil", row.name, err)
		}
		caller.Permissions = AllPermissions().Without(row.needs)
		err := AuthorizeMessage(WithCaller(t.Context(), caller), row.procedure, row.message)
		if row.needs == "" {
			if err != nil {
				t.Errorf("%s: got %v", row.name, err)
			}
			caller.Permissions = 0
			if err := AuthorizeMessage(WithCaller(t.Context(), caller), row.procedure, row.message); err != nil {
				t.Errorf("%s without permissions: AuthorizeMessage() = %v", row.name, err)
			}
			continue
		}
		userErr, ok := user.AsError(err)
		if !ok || userErr.Code != user.PermissionDenied || userErr.Reason != user.PermissionMissing ||
			userErr.Metadata["permission"] != string(row.needs) {
			t.Errorf("%s: got %+v", row.name, userErr)
		}
		if err := AuthorizeMessage(t.Context(), row.procedure, row.message); !user.HasReason(err, user.CredentialsMissing) {
			t.Errorf("%s, anonymous: AuthorizeMessage() = %v", row.name, err)
		}
	}
}

func TestPermissions(t *testing.T) {
	all := AllPermissions()
	for _, p := range AllPermissions().List() {
		if !all.Has(p) || all.Without(p).Has(p) || !PermissionsOf(p).Has(p) {
			t.Errorf("%s: inconsistent set operations", p)
		}
	}
	if got := PermissionsOf(all.List()...); got != all {
		t.Errorf("PermissionsOf(all) = %b", got)
	}
	if all.Has("users.fly") || PermissionsOf("users.fly", "") != 0 {
		t.Error("an unknown permission is in the set")
	}
	if got := PermissionsOf(StatusWrite, UsersRead).List(); len(got) != 2 || got[0] != UsersRead || got[1] != StatusWrite {
		t.Errorf("List() = %v", got)
	}
	if (Caller{}).Permissions.Has(UsersRead) || FromContext(t.Context()) != (Caller{}) {
		t.Error("the zero set is not empty")
	}
}
