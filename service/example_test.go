package service_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/validate"
)

// The RPCs on a mux of one's own. Authentication, limits, health and REST are in package server.
func ExampleNew() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "users")
	defer func() { _ = os.RemoveAll(dir) }()

	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, "users.db")})
	if err != nil {
		panic(err)
	}
	defer func() { _ = store.Close() }()
	log, err := feed.Open(ctx, store)
	if err != nil {
		panic(err)
	}
	validator, err := validate.New(userv1.File_user_v1_user_service_proto)
	if err != nil {
		panic(err)
	}
	users, err := service.New(store, log, service.Options{Validator: validator})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(users, connect.WithInterceptors(
		intercept.NewErrors(slog.Default()), intercept.NewValidate(validator),
	)))

	server := httptest.NewServer(mux)
	defer server.Close()
	client := userv1connect.NewUserServiceClient(server.Client(), server.URL)
	created, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.org"})
	fmt.Println(created.GetUser().GetUsername(), created.GetUser().GetVersion(), err)
	_, err = client.CreateUser(ctx, &userv1.CreateUserRequest{Username: "ada"})
	fmt.Println(err)
	// Output:
	// ada 1 <nil>
	// invalid_argument: invalid request: email: must be at least 3 characters
}
