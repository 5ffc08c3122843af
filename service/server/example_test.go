package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"
)

// A client over HTTP/2 without TLS (h2c), which gRPC and bidirectional streams need, of a server with
// default configuration.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	address, stopped := serve(ctx)

	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	client := userv1connect.NewUserServiceClient(&http.Client{Transport: transport}, "http://"+address, connect.WithGRPC())

	created, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.org"})
	if err != nil {
		panic(err)
	}
	stream, err := client.SyncUserStatus(ctx)
	if err != nil {
		panic(err)
	}
	if err := stream.Send(&userv1.UserStatusUpdate{
		UserId: created.GetUser().GetUserId(), Status: userv1.UserStatus_USER_STATUS_SUSPENDED,
	}); err != nil {
		panic(err)
	}
	update, err := stream.Receive()
	if err != nil {
		panic(err)
	}
	fmt.Println(update.GetStatus(), update.GetActivityId())
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
	transport.CloseIdleConnections()
	stop()
	fmt.Println(<-stopped)
	// Output:
	// USER_STATUS_SUSPENDED 2
	// <nil>
}

// serve runs a server on a free port until ctx ends, and then sends the result of its shutdown.
func serve(ctx context.Context) (address string, stopped <-chan error) {
	dir, err := os.MkdirTemp("", "users")
	if err != nil {
		panic(err)
	}
	log, metrics := slog.New(slog.DiscardHandler), telemetry.NewMetrics(telemetry.Build{})
	store, storage, err := server.OpenStore(ctx, server.StoreOptions{Address: "sqlite:" + filepath.Join(dir, "users.db"), Logger: log, Metrics: metrics})
	if err != nil {
		panic(err)
	}
	config, err := server.Defaults()
	if err != nil {
		panic(err)
	}
	config.Listen, config.AdminListen = "127.0.0.1:0", ""
	running, err := server.New(ctx, config, server.Parts{Store: store, Storage: storage, Logger: log, Metrics: metrics})
	if err != nil {
		panic(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := running.Run(ctx)
		_ = os.RemoveAll(dir)
		ended <- err
	}()
	return running.Addr().String(), ended
}
