package server_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/user"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// Two servers share a database: a user that one creates is read from the other at its position, and both deliver the
// changes of both to their streams, in order and without a gap.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	nodes := []*servertest.Server{
		servertest.Start(t, servertest.Parallel(), servertest.Address(database)), servertest.Start(t, servertest.Parallel(), servertest.Address(database)),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const users = 20
	received := make(chan string, len(nodes))
	for i, node := range nodes {
		stream, err := node.GRPC().StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for want := int64(1); want <= users; want++ {
				if !stream.Receive() || stream.Msg().GetActivityId() != want {
					received <- fmt.Sprintf("stream of node %d: %v, %v, want position %d", i, stream.Msg(), stream.Err(), want)
					return
				}
			}
			received <- ""
		}()
	}
	for i := range users {
		writer, reader := nodes[i%2].GRPC(), nodes[(i+1)%2].GRPC()
		name := fmt.Sprint("user", i)
		writing, info := connect.NewClientContext(ctx)
		created, err := writer.CreateUser(writing, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"})
		if err != nil {
			t.Fatal(err)
		}
		position := info.ResponseHeader().Get(user.PositionHeader)
		reading, asked := connect.NewClientContext(ctx)
		asked.RequestHeader().Set(user.MinPositionHeader, position)
		got, err := reader.GetUser(reading, &userv1.GetUserRequest{UserId: created.GetUser().GetUserId()})
		if err != nil || got.GetUser().GetUsername() != name {
			t.Errorf("GetUser on the other node after %s = %v, %v, want %s", position, got, err, name)
		}
	}
	for range nodes {
		if failure := <-received; failure != "" {
			t.Error(failure)
		}
	}
	cancel()
}
