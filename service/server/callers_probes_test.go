package server_test

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
)

type api = userv1connect.UserServiceClient

// probe is a call that could reveal data of a user.
type probe struct {
	name   string
	method protoreflect.Name
	needs  []auth.Permission // nil: those of the method in needed
	shows  auth.Permission   // with it too, the response has a secret; empty: never
	invoke func(context.Context, api, int64) (proto.Message, error)
}

const (
	oldEtag  = "1-abc"
	repeatID = "6f2b1a1e-3a0a-4a54-9b51-3ad6c1f2a111"
	skip     = userv1.ConflictPolicy_CONFLICT_POLICY_SKIP
	update   = userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE
)

var longAgo = timestamppb.New(time.Unix(1, 0))

// probes change no user for longer than the call. Each RPC has one.
func probes() []probe {
	taken := &userv1.CreateUserRequest{Username: "other", Email: "HIDDEN-mail@example.org"}
	takenByDeleted := &userv1.CreateUserRequest{Username: "deleted-name", Email: "new@example.org"}
	validated := proto.CloneOf(taken)
	validated.ValidateOnly = true
	all := []probe{
		{"user", "GetUser", nil, auth.UsersRead, unary(api.GetUser, func(id int64) *userv1.GetUserRequest {
			return &userv1.GetUserRequest{UserId: id}
		})},
		{"users", "BatchGetUsers", nil, auth.UsersRead, unary(api.BatchGetUsers, func(id int64) *userv1.BatchGetUsersRequest {
			return &userv1.BatchGetUsersRequest{UserIds: []int64{id}}
		})},
		{"list", "ListUsers", nil, auth.UsersRead, unary(api.ListUsers, func(int64) *userv1.ListUsersRequest {
			return &userv1.ListUsersRequest{Filter: `email="hidden-mail@example.org"`, OrderBy: "email", Count: true}
		})},
		{"list with deleted users", "ListUsers", []auth.Permission{auth.UsersRead, auth.UsersReadDeleted}, auth.UsersRead,
			unary(api.ListUsers, func(int64) *userv1.ListUsersRequest { return &userv1.ListUsersRequest{ShowDeleted: true} })},
		{"mirror", "WatchUsers", nil, auth.UsersRead, func(ctx context.Context, c api, _ int64) (proto.Message, error) {
			stream, err := c.WatchUsers(ctx, &userv1.WatchUsersRequest{Filter: `username="hidden-name"`})
			return first(stream, err)
		}},
		{"create of a deleted user's", "CreateUser", nil, auth.UsersRead,
			unary(api.CreateUser, func(int64) *userv1.CreateUserRequest { return takenByDeleted })},
		{"create of a user's, validated", "CreateUser", nil, auth.UsersRead,
			unary(api.CreateUser, func(int64) *userv1.CreateUserRequest { return validated })},
		{"creates that skip", "CreateUsers", nil, auth.UsersRead, creates(skip, taken)},
		{"creates that skip, validated", "CreateUsers", nil, auth.UsersRead, creates(skip, validated)},
		{"creates that fail", "CreateUsers", nil, auth.UsersRead, creates(0, takenByDeleted)},
		{"creates that update, validated", "CreateUsers", nil, auth.UsersRead, creates(update, validated)},
		{"import that skips", "BatchCreateUsers", nil, "", imports(skip, taken)},
		{"import that fails", "BatchCreateUsers", nil, auth.UsersRead, imports(0, takenByDeleted)},
		{"update of nothing", "UpdateUser", nil, auth.UsersRead, unary(api.UpdateUser, updateOf(""))},
		{"update with an old etag", "UpdateUser", nil, auth.UsersRead, unary(api.UpdateUser, updateOf(oldEtag))},
		{"update of nothing, repeated", "UpdateUser", nil, auth.UsersRead, unary(api.UpdateUser, func(id int64) *userv1.UpdateUserRequest {
			return &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}, RequestId: repeatID}
		})},
		{"updates of nothing", "UpdateUsers", nil, auth.UsersRead, updates("", false)},
		{"updates of nothing, atomic", "UpdateUsers", nil, auth.UsersRead, updates("", true)},
		{"updates with an old etag", "UpdateUsers", nil, auth.UsersRead, updates(oldEtag, false)},
		{"updates with an old etag, atomic", "UpdateUsers", nil, auth.UsersRead, updates(oldEtag, true)},
		{"stream of updates with an old etag", "BatchUpdateUsers", nil, auth.UsersRead, func(ctx context.Context, c api, id int64) (proto.Message, error) {
			stream, err := c.BatchUpdateUsers(ctx)
			if err != nil {
				return nil, err
			}
			if err := stream.Send(updateOf(oldEtag)(id)); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return stream.CloseAndReceive()
		}},
		{"purge of a user that is not deleted", "PurgeUser", nil, "", unary(api.PurgeUser, func(id int64) *userv1.PurgeUserRequest {
			return &userv1.PurgeUserRequest{UserId: id, Etag: oldEtag}
		})},
		{"record", "RecordUserActivity", nil, "", unary(api.RecordUserActivity, func(id int64) *userv1.RecordUserActivityRequest {
			return &userv1.RecordUserActivityRequest{UserId: id, Action: "app.seen"}
		})},
	}
	return append(append(append(all, deletionProbes()...), activityProbes()...), statusProbes()...)
}

func deletionProbes() []probe {
	remove := unary(api.DeleteUser, func(id int64) *userv1.DeleteUserRequest { return &userv1.DeleteUserRequest{UserId: id} })
	restore := unary(api.UndeleteUser, func(id int64) *userv1.UndeleteUserRequest { return &userv1.UndeleteUserRequest{UserId: id} })
	return []probe{
		{"deletion with an old etag", "DeleteUser", nil, auth.UsersRead, unary(api.DeleteUser, func(id int64) *userv1.DeleteUserRequest {
			return &userv1.DeleteUserRequest{UserId: id, Etag: oldEtag}
		})},
		{"deletion", "DeleteUser", nil, auth.UsersRead, func(ctx context.Context, c api, id int64) (proto.Message, error) {
			res, err := remove(ctx, c, id)
			if err == nil {
				_, err = restore(ctx, c, id)
			}
			return res, err
		}},
		{"undeletion", "UndeleteUser", nil, auth.UsersRead, func(ctx context.Context, c api, id int64) (proto.Message, error) {
			if _, err := remove(ctx, c, id); err != nil {
				return nil, err
			}
			return restore(ctx, c, id)
		}},
	}
}

func activityProbes() []probe {
	ofUser, created := []auth.Permission{auth.ActivitiesRead}, []string{"user.created"}
	return []probe{
		{"activities", "ListUserActivities", ofUser, auth.UsersRead, unary(api.ListUserActivities, func(id int64) *userv1.ListUserActivitiesRequest {
			return &userv1.ListUserActivitiesRequest{UserId: id, Actions: created}
		})},
		{"activities of all", "ListUserActivities", nil, auth.UsersRead, unary(api.ListUserActivities, func(int64) *userv1.ListUserActivitiesRequest {
			return &userv1.ListUserActivitiesRequest{Actions: created}
		})},
		{"stream of activities", "StreamUserActivities", ofUser, auth.UsersRead, func(ctx context.Context, c api, id int64) (proto.Message, error) {
			return replay(ctx, c, &userv1.StreamUserActivitiesRequest{UserId: id, ReplayOnly: true, Actions: created})
		}},
		{"stream of activities of all", "StreamUserActivities", nil, auth.UsersRead, func(ctx context.Context, c api, _ int64) (proto.Message, error) {
			return replay(ctx, c, &userv1.StreamUserActivitiesRequest{ReplayOnly: true, Actions: created})
		}},
	}
}

func statusProbes() []probe {
	return []probe{
		{"status that is too old", "UpdateUserStatus", nil, auth.StatusRead, unary(api.UpdateUserStatus, func(id int64) *userv1.UpdateUserStatusRequest {
			return &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus_USER_STATUS_ACTIVE, Timestamp: longAgo}
		})},
		{"status", "WatchUserStatus", nil, auth.StatusRead, func(ctx context.Context, c api, id int64) (proto.Message, error) {
			stream, err := c.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{UserIds: []int64{id}})
			return first(stream, err)
		}},
		{"status of all", "WatchUserStatus", []auth.Permission{auth.StatusRead, auth.UsersWatchAll}, auth.StatusRead,
			func(ctx context.Context, c api, _ int64) (proto.Message, error) {
				const beforeStatuses = 3 // the rows of makeSecret before them
				stream, err := c.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{All: true, AfterActivityId: beforeStatuses})
				return first(stream, err)
			}},
		{"follow", "SyncUserStatus", nil, auth.StatusRead, func(ctx context.Context, c api, id int64) (proto.Message, error) {
			stream, err := c.SyncUserStatus(ctx)
			if err != nil {
				return nil, err
			}
			defer func() { _ = stream.CloseResponse() }()
			if err := stream.Send(&userv1.UserStatusUpdate{UserId: id}); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			response, err := stream.Receive()
			return response, errors.Join(err, stream.CloseRequest())
		}},
	}
}

// unary returns a probe of a unary RPC.
func unary[Req, Res any, Message interface {
	*Res
	proto.Message
}](call func(api, context.Context, *Req) (*Res, error), request func(id int64) *Req) func(context.Context, api, int64) (proto.Message, error) {
	return func(ctx context.Context, c api, id int64) (proto.Message, error) {
		res, err := call(c, ctx, request(id))
		return Message(res), err
	}
}

func creates(policy userv1.ConflictPolicy, item *userv1.CreateUserRequest) func(context.Context, api, int64) (proto.Message, error) {
	return unary(api.CreateUsers, func(int64) *userv1.CreateUsersRequest {
		return &userv1.CreateUsersRequest{ConflictPolicy: policy, Requests: []*userv1.CreateUserRequest{item}}
	})
}

func imports(policy userv1.ConflictPolicy, item *userv1.CreateUserRequest) func(context.Context, api, int64) (proto.Message, error) {
	return func(ctx context.Context, c api, _ int64) (proto.Message, error) {
		stream, err := c.BatchCreateUsers(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(&userv1.BatchCreateUsersRequest{User: item, ConflictPolicy: policy}); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return stream.CloseAndReceive()
	}
}

// updateOf returns an update that changes nothing.
func updateOf(etag string) func(int64) *userv1.UpdateUserRequest {
	return func(id int64) *userv1.UpdateUserRequest {
		return &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{}, Etag: etag}
	}
}

func updates(etag string, atomic bool) func(context.Context, api, int64) (proto.Message, error) {
	return unary(api.UpdateUsers, func(id int64) *userv1.UpdateUsersRequest {
		return &userv1.UpdateUsersRequest{Atomic: atomic, Requests: []*userv1.UpdateUserRequest{updateOf(etag)(id)}}
	})
}

func replay(ctx context.Context, c api, req *userv1.StreamUserActivitiesRequest) (proto.Message, error) {
	stream, err := c.StreamUserActivities(ctx, req)
	if err != nil {
		return nil, err
	}
	all := &userv1.ListUserActivitiesResponse{}
	for stream.Receive() {
		all.Activities = append(all.Activities, proto.CloneOf(stream.Msg()))
	}
	return all, errors.Join(stream.Err(), stream.Close())
}

// first returns the first message of a stream and closes it.
func first[T any, Message interface {
	*T
	proto.Message
}](stream *connect.ServerStreamForClient[T], err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	if !stream.Receive() {
		return nil, stream.Err()
	}
	return Message(stream.Msg()), nil
}
