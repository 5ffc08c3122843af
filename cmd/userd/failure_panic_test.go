package main_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// A handler that panics fails for its caller alone, who is told where the log has
// it.
func TestPanicInHandler(t *testing.T) {
	ctx := within(t, time.Minute)
	p := program{dir: t.TempDir(), fault: "panic-in-handler"}.start(t)
	client := p.client(t, 1<<20)
	id := createOne(ctx, t, p)
	live, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true})
	if err != nil {
		t.Fatal(err)
	}
	for file, call := range map[string]func() error{
		"get_user.go": func() error {
			_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: 1})
			return err
		},
		// It works on two goroutines. This is the one that is not the call's own.
		"sync_user_status.go": func() error {
			stream, err := client.SyncUserStatus(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&userv1.UserStatusUpdate{UserId: 1}); err != nil {
				return err
			}
			_, err = stream.Receive()
			return err
		},
	} {
		err := call()
		info := mustBe(t, err, connect.CodeInternal, "INTERNAL")
		if strings.Contains(err.Error(), "planted") {
			t.Errorf("the caller is told what went wrong inside: %v", err)
		}
		incident := info.GetMetadata()["incident"]
		if incident == "" {
			t.Fatal("no incident")
		}
		p.output.await(t, incident, "planted: nobody can get this user", "debug.Stack", file)
	}
	// The others, those on the same connection too, have not noticed.
	if _, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
		t.Error(err)
	}
	if err := record(ctx, client, id, "test.noted", "after the panic"); err != nil {
		t.Error(err)
	}
	if !live.Receive() || live.Msg().GetAction() != "test.noted" {
		t.Errorf("the live stream: %v, %v", live.Msg(), live.Err())
	}
}
