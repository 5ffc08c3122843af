package service_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/sqlite"
)

// A service with zero options serves every RPC and validates each item.
func TestZeroOptions(t *testing.T) {
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "users.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	served, err := service.New(store, f, service.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Service: served, store: store, feed: f}
	calls := everyRPC(r.client(t), r.create(t, "ann").GetUserId())
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		call := calls[name]
		if call == nil {
			t.Errorf("%s is not called", name)
			continue
		}
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func everyRPC(c userv1connect.UserServiceClient, id int64) map[string]func(context.Context) error {
	valid := &userv1.User{Tags: []string{"a"}}
	invalid := &userv1.User{Tags: []string{""}}
	create := func(name string) *userv1.CreateUserRequest {
		return &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"}
	}
	return map[string]func(context.Context) error{
		"GetUser":       unary(c.GetUser, &userv1.GetUserRequest{UserId: id}),
		"BatchGetUsers": unary(c.BatchGetUsers, &userv1.BatchGetUsersRequest{UserIds: []int64{id}}),
		"ListUsers":     unary(c.ListUsers, &userv1.ListUsersRequest{}),
		"CreateUser":    unary(c.CreateUser, create("bob")),
		"UpdateUser":    unary(c.UpdateUser, &userv1.UpdateUserRequest{UserId: id, User: valid}),
		"DeleteUser":    unary(c.DeleteUser, &userv1.DeleteUserRequest{UserId: id}),
		"UndeleteUser":  unary(c.UndeleteUser, &userv1.UndeleteUserRequest{UserId: id}),
		"PurgeUser": func(ctx context.Context) error {
			res, err := c.CreateUser(ctx, create("gone"))
			if err != nil {
				return err
			}
			id := res.GetUser().GetUserId()
			if _, err := c.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: id}); err != nil {
				return err
			}
			return unary(c.PurgeUser, &userv1.PurgeUserRequest{UserId: id})(ctx)
		},
		"CreateUsers": func(ctx context.Context) error {
			res, err := c.CreateUsers(ctx, &userv1.CreateUsersRequest{Requests: []*userv1.CreateUserRequest{create("cleo"), create("")}})
			return wantOneFailure(err, len(res.GetResults()), failuresOf(res.GetResults())...)
		},
		"UpdateUsers": func(ctx context.Context) error {
			res, err := c.UpdateUsers(ctx, &userv1.UpdateUsersRequest{Requests: []*userv1.UpdateUserRequest{
				{UserId: id, User: valid}, {UserId: id, User: invalid},
			}})
			return wantOneFailure(err, len(res.GetResults()), failuresOf(res.GetResults())...)
		},
		"BatchCreateUsers": func(ctx context.Context) error {
			stream, err := c.BatchCreateUsers(ctx)
			if err != nil {
				return err
			}
			for _, name := range []string{"dora", ""} {
				if err := stream.Send(&userv1.BatchCreateUsersRequest{User: create(name)}); err != nil {
					return err
				}
			}
			res, err := stream.CloseAndReceive()
			return wantOneFailure(err, len(res.GetResults()), res.GetFailures()...)
		},
		"BatchUpdateUsers": func(ctx context.Context) error {
			stream, err := c.BatchUpdateUsers(ctx)
			if err != nil {
				return err
			}
			for _, u := range []*userv1.User{valid, invalid} {
				if err := stream.Send(&userv1.UpdateUserRequest{UserId: id, User: u}); err != nil {
					return err
				}
			}
			res, err := stream.CloseAndReceive()
			return wantOneFailure(err, int(res.GetUpdatedCount())+1, res.GetFailures()...)
		},
		"StreamUserActivities": func(ctx context.Context) error {
			stream, err := c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: id, ReplayOnly: true})
			if err != nil {
				return err
			}
			defer func() { _ = stream.Close() }()
			if !stream.Receive() {
				return fmt.Errorf("no row: %w", stream.Err())
			}
			return nil
		},
		"ListUserActivities": unary(c.ListUserActivities, &userv1.ListUserActivitiesRequest{UserId: id}),
		"RecordUserActivity": unary(c.RecordUserActivity, &userv1.RecordUserActivityRequest{UserId: id, Action: "test.noted"}),
		"SyncUserStatus": func(ctx context.Context) error {
			stream, err := c.SyncUserStatus(ctx)
			if err != nil {
				return err
			}
			for seq, status := range []userv1.UserStatus{inactive, 77} {
				if err := stream.Send(&userv1.UserStatusUpdate{UserId: id, Status: status}); err != nil {
					return err
				}
				res, err := stream.Receive()
				if err != nil || (res.GetFailure() != nil) != (seq == 1) {
					return fmt.Errorf("response %v to status %v: %w", res, status, err)
				}
			}
			return errors.Join(stream.CloseRequest(), stream.CloseResponse())
		},
		"UpdateUserStatus": unary(c.UpdateUserStatus, &userv1.UpdateUserStatusRequest{UserId: id, Status: inactive}),
		"WatchUserStatus": func(ctx context.Context) error {
			stream, err := c.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{UserIds: []int64{id}})
			if err != nil {
				return err
			}
			defer func() { _ = stream.Close() }()
			if !stream.Receive() {
				return fmt.Errorf("no status: %w", stream.Err())
			}
			return nil
		},
		"WatchUsers": func(ctx context.Context) error {
			stream, err := c.WatchUsers(ctx, &userv1.WatchUsersRequest{})
			if err != nil {
				return err
			}
			defer func() { _ = stream.Close() }()
			if !stream.Receive() {
				return fmt.Errorf("no user: %w", stream.Err())
			}
			return nil
		},
	}
}

func failuresOf(results []*userv1.UserResult) (failures []*userv1.ItemFailure) {
	for _, result := range results {
		if failure := result.GetFailure(); failure != nil {
			failures = append(failures, failure)
		}
	}
	return failures
}

// unary returns a call without its response.
func unary[Req, Res any](call func(context.Context, Req) (Res, error), req Req) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := call(ctx, req)
		return err
	}
}

// wantOneFailure returns an error unless one of two items failed, with its field.
func wantOneFailure(err error, results int, failures ...*userv1.ItemFailure) error {
	if err != nil || results != 2 || len(failures) != 1 || len(failures[0].GetFieldViolations()) == 0 {
		return fmt.Errorf("%d results, failures %v, want 2 and one with a field: %w", results, failures, err)
	}
	return nil
}
