package client

import (
	"context"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// maxBatch is the maximum number of items of a request, and of an attempt of a batch.
const maxBatch = 1000

// GetUser returns a user, or its given fields. A deleted user has deleted_at. Error: ErrUserNotFound.
func (c *Client) GetUser(ctx context.Context, id int64, fields ...string) (*userv1.User, error) {
	request := &userv1.GetUserRequest{UserId: id, Fields: fields}
	response, err := call(ctx, c, "GetUser", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.GetUserResponse, error) {
		return rpc.GetUser(ctx, request)
	})
	return response.GetUser(), err
}

// BatchGetUsers returns the users that exist, in the order of ids, and the ids that were not found. It makes a call for
// each 1,000 ids, and further ones if a response would exceed the message limit. Duplicate ids are an error.
func (c *Client) BatchGetUsers(ctx context.Context, ids []int64, fields ...string) (users []*userv1.User, missing []int64, err error) {
	for chunk := range slices.Chunk(ids, maxBatch) {
		for len(chunk) > 0 {
			request := &userv1.BatchGetUsersRequest{UserIds: chunk, Fields: fields}
			response, err := call(ctx, c, "BatchGetUsers",
				func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.BatchGetUsersResponse, error) {
					return rpc.BatchGetUsers(ctx, request)
				})
			if err != nil {
				return nil, nil, err
			}
			users = append(users, response.GetUsers()...)
			missing = append(missing, response.GetMissingUserIds()...)
			chunk = response.GetLeftOverUserIds()
		}
	}
	return users, missing, nil
}

// ListUsers returns a page of users.
func (c *Client) ListUsers(ctx context.Context, request *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
	return call(ctx, c, "ListUsers", func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.ListUsersResponse, error) {
		return rpc.ListUsers(ctx, request)
	})
}

// Users returns all users of a list, from the page of the request on. An error is the last pair.
func (c *Client) Users(ctx context.Context, request *userv1.ListUsersRequest) iter.Seq2[*userv1.User, error] {
	return func(yield func(*userv1.User, error) bool) {
		page := proto.CloneOf(request)
		for {
			response, err := c.ListUsers(ctx, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, u := range response.GetUsers() {
				if !yield(u, nil) {
					return
				}
			}
			if page.PageToken = response.GetNextPageToken(); page.PageToken == "" {
				return
			}
		}
	}
}

// ListUserActivities returns a page of the log of a user; user_id 0: of all users.
func (c *Client) ListUserActivities(ctx context.Context, request *userv1.ListUserActivitiesRequest) (*userv1.ListUserActivitiesResponse, error) {
	return call(ctx, c, "ListUserActivities",
		func(ctx context.Context, rpc userv1connect.UserServiceClient) (*userv1.ListUserActivitiesResponse, error) {
			return rpc.ListUserActivities(ctx, request)
		})
}

// PastActivities returns all rows of a list of activities, from the page of the request on. An error is the last pair.
func (c *Client) PastActivities(ctx context.Context, request *userv1.ListUserActivitiesRequest) iter.Seq2[*userv1.UserActivity, error] {
	return func(yield func(*userv1.UserActivity, error) bool) {
		page := proto.CloneOf(request)
		for {
			response, err := c.ListUserActivities(ctx, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range response.GetActivities() {
				if !yield(row, nil) {
					return
				}
			}
			if page.PageToken = response.GetNextPageToken(); page.PageToken == "" {
				return
			}
		}
	}
}
