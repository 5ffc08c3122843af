package client

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// Write has the optional conditions of DeleteUser, UndeleteUser and PurgeUser.
type Write struct {
	ETag      string // apply only to this version of the user
	RequestID string // UUID. Default: a new one
}

// WriteOption sets a field of Write.
type WriteOption func(*Write)

// IfMatch makes a write fail with ErrETagMismatch unless etag is that of the current version.
func IfMatch(etag string) WriteOption { return func(w *Write) { w.ETag = etag } }

// RequestID sets the request id of a write, a UUID: within 24 hours the write is applied once.
func RequestID(id string) WriteOption { return func(w *Write) { w.RequestID = id } }

// newRequestID returns a UUID of version 7: servers store request ids in their order, and append the newest ones.
func newRequestID() string { return uuid.Must(uuid.NewV7()).String() }

func newWrite(options []WriteOption) Write {
	var w Write
	for _, option := range options {
		option(&w)
	}
	if w.RequestID == "" {
		w.RequestID = newRequestID()
	}
	return w
}

// identified is a request with a request id.
type identified interface {
	proto.Message
	GetRequestId() string
}

// identify returns a request with a request id: the message itself if it has one, else a copy with a new one, because
// callers may send a message again as a new request.
func identify[M identified](message M, id func(M) *string) M {
	if message.GetRequestId() != "" {
		return message
	}
	message = proto.CloneOf(message)
	*id(message) = newRequestID()
	return message
}

// CreateUser creates a user. Errors: ErrUsernameTaken, ErrEmailTaken, ErrInvalidField.
func (c *Client) CreateUser(ctx context.Context, request *userv1.CreateUserRequest) (*userv1.User, error) {
	request = identifyCreate(request)
	response, err := call(ctx, c, "CreateUser", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.CreateUserResponse, error) {
		return rpc.CreateUser(ctx, request)
	})
	return response.GetUser(), err
}

func identifyCreate(request *userv1.CreateUserRequest) *userv1.CreateUserRequest {
	return identify(request, func(r *userv1.CreateUserRequest) *string { return &r.RequestId })
}

// UpdateUser changes the fields of the update mask; without a mask, those that are not empty in user. Errors:
// ErrUserNotFound, ErrUserDeleted, ErrETagMismatch, ErrUsernameTaken, ErrEmailTaken, ErrInvalidField.
func (c *Client) UpdateUser(ctx context.Context, request *userv1.UpdateUserRequest) (*userv1.User, error) {
	request = identifyUpdate(request)
	response, err := call(ctx, c, "UpdateUser", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.UpdateUserResponse, error) {
		return rpc.UpdateUser(ctx, request)
	})
	return response.GetUser(), err
}

func identifyUpdate(request *userv1.UpdateUserRequest) *userv1.UpdateUserRequest {
	return identify(request, func(r *userv1.UpdateUserRequest) *string { return &r.RequestId })
}

// DeleteUser marks a user as deleted. Errors: ErrUserNotFound, ErrUserDeleted, ErrETagMismatch.
func (c *Client) DeleteUser(ctx context.Context, id int64, options ...WriteOption) (*userv1.User, error) {
	w := newWrite(options)
	request := &userv1.DeleteUserRequest{UserId: id, Etag: w.ETag, RequestId: w.RequestID}
	response, err := call(ctx, c, "DeleteUser", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.DeleteUserResponse, error) {
		return rpc.DeleteUser(ctx, request)
	})
	return response.GetUser(), err
}

// UndeleteUser restores a deleted user. Errors: ErrUserNotFound, ErrUserNotDeleted, ErrETagMismatch.
func (c *Client) UndeleteUser(ctx context.Context, id int64, options ...WriteOption) (*userv1.User, error) {
	w := newWrite(options)
	request := &userv1.UndeleteUserRequest{UserId: id, Etag: w.ETag, RequestId: w.RequestID}
	response, err := call(ctx, c, "UndeleteUser", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.UndeleteUserResponse, error) {
		return rpc.UndeleteUser(ctx, request)
	})
	return response.GetUser(), err
}

// PurgeUser erases a deleted user, without a way back, and returns the position of the row user.purged. Errors:
// ErrUserNotFound, also if the user is purged already, ErrUserNotDeleted, ErrETagMismatch.
func (c *Client) PurgeUser(ctx context.Context, id int64, options ...WriteOption) (position int64, err error) {
	w := newWrite(options)
	request := &userv1.PurgeUserRequest{UserId: id, Etag: w.ETag, RequestId: w.RequestID}
	response, err := call(ctx, c, "PurgeUser", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.PurgeUserResponse, error) {
		return rpc.PurgeUser(ctx, request)
	})
	return response.GetActivityId(), err
}

// CreateUsers creates up to 1,000 users, independently or, with atomic, all or none. See BatchCreateUsers for more.
func (c *Client) CreateUsers(ctx context.Context, request *userv1.CreateUsersRequest) ([]*userv1.UserResult, error) {
	identified := &userv1.CreateUsersRequest{Atomic: request.GetAtomic(), ConflictPolicy: request.GetConflictPolicy()}
	for _, item := range request.GetRequests() {
		identified.Requests = append(identified.Requests, identifyCreate(item))
	}
	response, err := call(ctx, c, "CreateUsers", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.CreateUsersResponse, error) {
		return rpc.CreateUsers(ctx, identified)
	})
	return response.GetResults(), err
}

// UpdateUsers applies up to 1,000 updates, independently or, with atomic, all or none. See BatchUpdateUsers for more.
func (c *Client) UpdateUsers(ctx context.Context, request *userv1.UpdateUsersRequest) ([]*userv1.UserResult, error) {
	identified := &userv1.UpdateUsersRequest{Atomic: request.GetAtomic()}
	for _, item := range request.GetRequests() {
		identified.Requests = append(identified.Requests, identifyUpdate(item))
	}
	response, err := call(ctx, c, "UpdateUsers", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.UpdateUsersResponse, error) {
		return rpc.UpdateUsers(ctx, identified)
	})
	return response.GetResults(), err
}

// RecordUserActivity adds an activity of an application to the log. Errors: ErrUserNotFound, ErrUserDeleted,
// ErrInvalidField.
func (c *Client) RecordUserActivity(ctx context.Context, request *userv1.RecordUserActivityRequest) (*userv1.UserActivity, error) {
	request = identify(request, func(r *userv1.RecordUserActivityRequest) *string { return &r.RequestId })
	response, err := call(ctx, c, "RecordUserActivity",
		func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.RecordUserActivityResponse, error) {
			return rpc.RecordUserActivity(ctx, request)
		})
	return response.GetActivity(), err
}

// UpdateUserStatus sets the status of a user and returns the status after the call. Errors: ErrUserNotFound,
// ErrUserDeleted, ErrInvalidField.
func (c *Client) UpdateUserStatus(ctx context.Context, request *userv1.UpdateUserStatusRequest) (*userv1.UserStatusUpdate, error) {
	request = identify(request, func(r *userv1.UpdateUserStatusRequest) *string { return &r.RequestId })
	response, err := call(ctx, c, "UpdateUserStatus",
		func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.UpdateUserStatusResponse, error) {
			return rpc.UpdateUserStatus(ctx, request)
		})
	return response.GetStatusUpdate(), err
}
