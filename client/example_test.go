package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// Calls, errors and the activity stream of a user.
func Example() {
	address, stop := startServer()
	defer stop()
	ctx := context.Background()

	users, err := client.New([]string{"http://" + address})
	if err != nil {
		panic(err)
	}
	defer func() { _ = users.Close() }()

	ada, err := users.CreateUser(ctx, &userv1.CreateUserRequest{Username: "Ada Lovelace", Email: "ada@example.org"})
	if err != nil {
		panic(err)
	}
	_, err = users.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ADA LOVELACE", Email: "other@example.org"})
	if errors.Is(err, client.ErrUsernameTaken) {
		fmt.Println("the username is taken")
	}
	for row, err := range users.Activities(ctx, &userv1.StreamUserActivitiesRequest{UserId: ada.GetUserId()}) {
		if err != nil {
			panic(err)
		}
		fmt.Println(row.GetActivityId(), row.GetAction())
		break // without it, the loop goes on with live rows
	}
	// Output:
	// the username is taken
	// 1 user.created
}

// The status of a user is set and followed by two sessions.
func ExampleClient_OpenStatusSession() {
	address, stop := startServer()
	defer stop()
	ctx := context.Background()
	users, err := client.New([]string{"http://" + address})
	if err != nil {
		panic(err)
	}
	defer func() { _ = users.Close() }()
	ada, err := users.CreateUser(ctx, &userv1.CreateUserRequest{Username: "Ada Lovelace", Email: "ada@example.org"})
	if err != nil {
		panic(err)
	}

	changes := make(chan userv1.UserStatus, 1)
	follower := users.OpenStatusSession(ctx, func(update *userv1.UserStatusUpdate) { changes <- update.GetStatus() })
	current, err := follower.Follow(ctx, ada.GetUserId())
	if err != nil {
		panic(err)
	}
	fmt.Println(current.GetStatus())

	session := users.OpenStatusSession(ctx, nil)
	if _, err := session.Set(ctx, ada.GetUserId(), userv1.UserStatus_USER_STATUS_INACTIVE); err != nil {
		panic(err)
	}
	fmt.Println(<-changes)
	fmt.Println(session.Close(), follower.Close())
	// Output:
	// USER_STATUS_ACTIVE
	// USER_STATUS_INACTIVE
	// <nil> <nil>
}

// An import with a report of the items that failed.
func ExampleClient_BatchCreateUsers() {
	address, stop := startServer()
	defer stop()
	users, err := client.New([]string{"http://" + address})
	if err != nil {
		panic(err)
	}
	defer func() { _ = users.Close() }()

	items := []*userv1.BatchCreateUsersRequest{
		{User: &userv1.CreateUserRequest{Username: "Ada Lovelace", Email: "ada@example.org"}},
		{User: &userv1.CreateUserRequest{Username: "Grace Hopper", Email: "ada@example.org"}},
	}
	summary, err := users.BatchCreateUsers(context.Background(), slices.Values(items), func(r client.ItemResult) error {
		if r.Err != nil {
			fmt.Println("item", r.Index, "failed:", errors.Is(r.Err, client.ErrEmailTaken))
		}
		return nil
	})
	fmt.Println(summary.Created, "created,", summary.Failed, "failed,", err)
	// Output:
	// item 1 failed: true
	// 1 created, 1 failed, <nil>
}

// A local copy of the active users, for lookups without calls.
func ExampleClient_Mirror() {
	address, stop := startServer()
	defer stop()
	ctx := context.Background()
	users, err := client.New([]string{"http://" + address})
	if err != nil {
		panic(err)
	}
	defer func() { _ = users.Close() }()
	ada, err := users.CreateUser(ctx, &userv1.CreateUserRequest{Username: "Ada Lovelace", Email: "ada@example.org"})
	if err != nil {
		panic(err)
	}

	mirror := users.Mirror(ctx, client.MirrorOptions{Filter: "status = ACTIVE"})
	defer mirror.Close()
	if err := mirror.WaitReady(ctx); err != nil {
		panic(err)
	}
	if u, ok := mirror.ByEmail("Ada@EXAMPLE.org"); ok {
		fmt.Println(u.GetUsername())
	}
	deleted, err := users.DeleteUser(ctx, ada.GetUserId())
	if err != nil {
		panic(err)
	}
	if err := mirror.WaitFor(ctx, deleted.GetLastActivityId()); err != nil {
		panic(err)
	}
	_, ok := mirror.Get(ada.GetUserId())
	fmt.Println(ok)
	// Output:
	// Ada Lovelace
	// false
}
