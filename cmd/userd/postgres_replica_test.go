package main_test

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// A node reads from its replica what another node has written, at the position of the write.
func TestPostgresReplica(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	n := startNodes(t)
	replica, err := n.database.NewReplica()
	replica = startDatabase(t, replica, err)
	reader := &target{admin: adminAddress()}
	reader.process = program{dir: t.TempDir(), flags: []string{
		"--store", n.database.URL(), "--store-replica", replica.URL(), "--admin-listen", reader.admin,
	}}.start(t)
	client := reader.process.client(t, 1<<20)
	for i := 0; i < 50 || reader.metric(t, `userd_store_reads_total{source="replica"}`) == 0; i++ {
		name := fmt.Sprint("user", i)
		writing, info := connect.NewClientContext(ctx)
		created, err := n.clients[i%2].CreateUser(writing, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"})
		if err != nil {
			t.Fatal(err)
		}
		reading, asked := connect.NewClientContext(ctx)
		asked.RequestHeader().Set(user.MinPositionHeader, info.ResponseHeader().Get(user.PositionHeader))
		got, err := client.GetUser(reading, &userv1.GetUserRequest{UserId: created.GetUser().GetUserId()})
		if err != nil || got.GetUser().GetUsername() != name {
			t.Fatalf("GetUser at the position of the write = %v, %v, want %s", got, err, name)
		}
	}
}
