package client_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// newClient returns a client of a server that is closed with the test. It always connects to the current address of the
// server.
func newClient(t testing.TB, s *servertest.Server, options ...client.Option) *client.Client {
	t.Helper()
	dial := client.WithDialer(func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx) })
	c, err := client.New([]string{"http://userd.test"}, append([]client.Option{dial}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// limited returns a context that ends after a time in which the test must be finished.
func limited(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// createUser creates a user whose name has the number.
func createUser(t testing.TB, c *client.Client, number int) *userv1.User {
	t.Helper()
	u, err := c.CreateUser(limited(t), &userv1.CreateUserRequest{Username: fmt.Sprintf("user %d", number), Email: fmt.Sprintf("user%d@example.org", number)})
	if err != nil {
		t.Fatal(err)
	}
	return u
}
